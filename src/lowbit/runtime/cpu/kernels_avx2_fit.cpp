#include "lowbit/runtime/cpu/fit_loops.h"

namespace lowbit::cpu {

const FitKernels kAvx2FitKernels = {softmax, swiglu, swiglu_backward};

}  // namespace lowbit::cpu

#include "lowbit/runtime/cpu/fit_kernels.h"

#include "lowbit/runtime/cpu/fit_loops.h"
#include "lowbit/runtime/cpu/isa.h"

namespace lowbit::cpu {

const FitKernels kPlainFitKernels = {softmax, swiglu, swiglu_backward};

const FitKernels& fit_kernels() {
  static const bool avx2 = detect_features().avx2_fma_f16c;
  return avx2 ? kAvx2FitKernels : kPlainFitKernels;
}

}  // namespace lowbit::cpu

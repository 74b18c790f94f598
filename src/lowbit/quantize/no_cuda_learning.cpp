#include "lowbit/base/check.h"
#include "lowbit/quantize/cuda_learning.h"

namespace lowbit {

std::unique_ptr<Learning> make_cuda_learning(ThreadPool&) {
  fail(ErrorKind::kUnsupported, "this build has no CUDA; quantize with --backend cpu");
}

}  // namespace lowbit

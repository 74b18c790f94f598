// Stands for the CUDA backend in builds without it.
#include "lowbit/base/check.h"
#include "lowbit/runtime/cuda/cuda_backend.h"

namespace lowbit {

namespace {

[[noreturn]] void fail_without_cuda() {
  fail(ErrorKind::kUnsupported,
       "this lowbit was built without CUDA; configure with -DLOWBIT_CUDA=ON, or use --backend cpu");
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions&) { fail_without_cuda(); }
double cuda_read_bandwidth() { fail_without_cuda(); }
double cuda_tensor_peak() { fail_without_cuda(); }
std::vector<CudaLimit> measure_cuda_limits() { fail_without_cuda(); }
std::vector<double> cuda_times(Backend&, const std::function<void()>&, int) { fail_without_cuda(); }
CUstream_st* cuda_stream(Backend&) { fail_without_cuda(); }

}  // namespace lowbit

// Watches kernels: their times for a trace (base/trace.h), or where one fails
// (BackendOptions::sync_each_kernel). Nothing is recorded as a graph while somebody watches, and
// traced kernels do not overlap.
#pragma once

#include <cuda_runtime_api.h>

namespace lowbit::cuda {

void sync_each_kernel(bool on);  // in this process
bool watching();

// From construction to destruction: around one launch.
class LaunchWatch {
 public:
  LaunchWatch(const void* kernel, cudaStream_t stream);
  // Throws kDevice naming the kernel if it failed and each is waited for.
  void launched();

 private:
  const void* kernel_;
  cudaStream_t stream_;
  cudaEvent_t start_ = nullptr;  // null: not traced
};

}  // namespace lowbit::cuda

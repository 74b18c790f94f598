// Large copies between host and GPU: through pinned memory, which threads of the host fill or empty
// while the other half of it is on its way. From pageable memory alone a copy is as fast as one
// thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "lowbit/base/thread_pool.h"

namespace lowbit::cuda {

class Transfers {
 public:
  // Copies are enqueued on `stream`, which outlives this object.
  explicit Transfers(cudaStream_t stream) : stream_(stream) {}
  ~Transfers();
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  cudaStream_t stream() const { return stream_; }
  // `from` may go when it returns. pool: null for one thread.
  void upload(const void* from, void* to, size_t bytes, ThreadPool* pool);
  // `to` is there when it returns.
  void download(const void* from, void* to, size_t bytes, ThreadPool* pool);

 private:
  void prepare();

  cudaStream_t stream_;
  static constexpr int kHalves = 2;
  void* pinned_[kHalves] = {};
  cudaEvent_t copied_[kHalves] = {};  // what was enqueued last for each half
};

}  // namespace lowbit::cuda

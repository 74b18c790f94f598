// Weights on their way to the GPU, and what is made of them on its way back.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <span>
#include <vector>

#include "lowbit/quantize/cuda/kernels.h"
#include "lowbit/quantize/cuda/transfers.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/runtime/cuda/device.h"

namespace lowbit::cuda {

// Device memory that belongs to a stream: freed when the stream is done with it. Throws as
// allocate().
std::shared_ptr<void> allocate_on(cudaStream_t stream, size_t bytes, const char* what);

// Lets the device keep freed memory for the next such allocation.
void keep_freed_memory();

template <typename T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(int64_t count, const char* what, cudaStream_t stream)
      : memory_(allocate_on(stream, static_cast<size_t>(count) * sizeof(T), what)),
        count_(count),
        stream_(stream) {}

  T* get() const { return static_cast<T*>(memory_.get()); }
  int64_t count() const { return count_; }
  void zero() { fill(0); }
  void fill(int byte) {
    LOWBIT_CUDA(cudaMemsetAsync(get(), byte, static_cast<size_t>(count_) * sizeof(T), stream_));
  }
  void upload(const T* from, int64_t count) {
    LOWBIT_CUDA(cudaMemcpyAsync(get(), from, static_cast<size_t>(count) * sizeof(T),
                                cudaMemcpyHostToDevice, stream_));
    LOWBIT_CUDA(cudaStreamSynchronize(stream_));  // `from` may go before a copy that is pending
  }
  void upload(const std::vector<T>& from) {
    upload(from.data(), static_cast<int64_t>(from.size()));
  }
  void download(T* to, int64_t count) const {
    LOWBIT_CUDA(cudaMemcpyAsync(to, get(), static_cast<size_t>(count) * sizeof(T),
                                cudaMemcpyDeviceToHost, stream_));
    LOWBIT_CUDA(cudaStreamSynchronize(stream_));
  }

 private:
  std::shared_ptr<void> memory_;
  int64_t count_ = 0;
  cudaStream_t stream_ = nullptr;
};

// A job's weight in fp32: what is stored in 16 bits travels so.
DeviceBuffer<float> upload_weight(const LinearJob& job, Transfers& transfers);

// Throws kInvalidArgument unless job and scheme fit a method that makes integer codes of
// `fewest_bits` to 8 bits.
void check_integers(const char* method, int fewest_bits, bool float_zeros, const LinearJob& job,
                    const QuantScheme& scheme);

// Codes and grids of a weight of integer groups while they are made.
class ResultBuffers {
 public:
  ResultBuffers(const LinearJob& job, const QuantScheme& scheme, Transfers& transfers);

  GroupsView view(const float* weight) const;
  GridsOut grids() const { return {scales_.get(), zeros_.get(), faults_.get()}; }
  float* offsets() const { return offsets_.get(); }
  uint8_t* codes() const { return codes_.get(); }
  // Remembers the first weight that is not finite.
  void check_finite(const float* weight);
  // The weight in host memory. Throws kInvalidArgument naming the job and the place of what went
  // wrong.
  QTensor take();

 private:
  void check_faults() const;

  const LinearJob& job_;
  Transfers& transfers_;
  QTensor weight_;
  DeviceBuffer<float> scales_, offsets_;
  DeviceBuffer<uint8_t> zeros_, codes_;  // a byte for each
  DeviceBuffer<Faults> faults_;
};

}  // namespace lowbit::cuda

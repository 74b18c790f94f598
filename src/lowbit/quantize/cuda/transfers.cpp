#include "lowbit/quantize/cuda/transfers.h"

#include <algorithm>
#include <cstring>

#include "lowbit/runtime/cuda/device.h"

namespace lowbit::cuda {

namespace {

constexpr size_t kHalfBytes = size_t{16} << 20;
constexpr size_t kSmallBytes = size_t{1} << 20;  // not worth it; also the piece of a thread

void copy(const char* from, char* to, size_t bytes, ThreadPool* pool) {
  const auto pieces = static_cast<int64_t>((bytes + kSmallBytes - 1) / kSmallBytes);
  const auto piece = [&](int64_t index, int) {
    const size_t at = static_cast<size_t>(index) * kSmallBytes;
    std::memcpy(to + at, from + at, std::min(kSmallBytes, bytes - at));
  };
  if (pool != nullptr) {
    pool->parallel_for(pieces, piece);
  } else {
    for (int64_t i = 0; i < pieces; ++i) piece(i, 0);
  }
}

}  // namespace

Transfers::~Transfers() {
  for (int i = 0; i < kHalves; ++i) {
    if (copied_[i] != nullptr) cudaEventSynchronize(copied_[i]);
    if (copied_[i] != nullptr) cudaEventDestroy(copied_[i]);
    if (pinned_[i] != nullptr) cudaFreeHost(pinned_[i]);
  }
}

void Transfers::prepare() {
  for (int i = 0; i < kHalves; ++i) {
    if (pinned_[i] == nullptr) LOWBIT_CUDA(cudaMallocHost(&pinned_[i], kHalfBytes));
    if (copied_[i] == nullptr) {
      LOWBIT_CUDA(cudaEventCreateWithFlags(&copied_[i], cudaEventDisableTiming));
    }
  }
}

void Transfers::upload(const void* from, void* to, size_t bytes, ThreadPool* pool) {
  if (bytes <= kSmallBytes) {
    LOWBIT_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_));
    LOWBIT_CUDA(cudaStreamSynchronize(stream_));
    return;
  }
  prepare();
  for (size_t at = 0, half = 0; at < bytes; at += kHalfBytes, half = 1 - half) {
    const size_t count = std::min(kHalfBytes, bytes - at);
    LOWBIT_CUDA(cudaEventSynchronize(copied_[half]));
    copy(static_cast<const char*>(from) + at, static_cast<char*>(pinned_[half]), count, pool);
    LOWBIT_CUDA(cudaMemcpyAsync(static_cast<char*>(to) + at, pinned_[half], count,
                                cudaMemcpyHostToDevice, stream_));
    LOWBIT_CUDA(cudaEventRecord(copied_[half], stream_));
  }
}

void Transfers::download(const void* from, void* to, size_t bytes, ThreadPool* pool) {
  if (bytes <= kSmallBytes) {
    LOWBIT_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_));
    LOWBIT_CUDA(cudaStreamSynchronize(stream_));
    return;
  }
  prepare();
  const auto fetch = [&](size_t at, size_t half) {
    if (at >= bytes) return;
    LOWBIT_CUDA(cudaMemcpyAsync(pinned_[half], static_cast<const char*>(from) + at,
                                std::min(kHalfBytes, bytes - at), cudaMemcpyDeviceToHost, stream_));
    LOWBIT_CUDA(cudaEventRecord(copied_[half], stream_));
  };
  fetch(0, 0);  // after the uploads of this half, which are on the same stream
  for (size_t at = 0, half = 0; at < bytes; at += kHalfBytes, half = 1 - half) {
    fetch(at + kHalfBytes, 1 - half);
    LOWBIT_CUDA(cudaEventSynchronize(copied_[half]));
    copy(static_cast<const char*>(pinned_[half]), static_cast<char*>(to) + at,
         std::min(kHalfBytes, bytes - at), pool);
  }
}

}  // namespace lowbit::cuda

// A thread for each group of weights: how it gets at them.
#pragma once

#include "lowbit/quantize/cuda/kernels.h"

namespace lowbit::cuda {

constexpr int kGroupThreads = 64;
constexpr int64_t kTiledSize = 128;  // larger groups are read where they are

struct Group {
  const float* base;
  int stride, size;
  __device__ float operator[](int k) const { return base[k * stride]; }
};

// Which group this thread has.
struct GroupPlaceAt {
  int64_t row, group;
  bool valid;
  __device__ explicit GroupPlaceAt(const GroupsView& view) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kGroupThreads + threadIdx.x;
    row = index / view.groups;
    group = index % view.groups;
    valid = row < view.rows;
  }
};

// Small groups come through shared memory: read in the order of memory, laid out so that neither
// writing nor reading meets a bank twice. All threads of a block take part.
__device__ inline Group load_group(const GroupsView& view, const GroupPlaceAt& at, float* tile) {
  const int size = static_cast<int>(view.size);
  if (size > kTiledSize) {
    return {view.weight + at.row * view.row_stride + at.group * view.size, 1, size};
  }
  constexpr int kStride = kGroupThreads + 1;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kGroupThreads;
  for (int i = static_cast<int>(threadIdx.x); i < size * kGroupThreads; i += kGroupThreads) {
    const int64_t index = first + i / size;
    if (index >= view.count()) break;
    const int64_t row = index / view.groups, group = index % view.groups;
    tile[i % size * kStride + i / size] =
        view.weight[row * view.row_stride + group * size + i % size];
  }
  __syncthreads();
  return {tile + threadIdx.x, kStride, size};
}

inline dim3 group_blocks(const GroupsView& view) {
  return dim3(static_cast<unsigned>((view.count() + kGroupThreads - 1) / kGroupThreads));
}
inline size_t group_bytes(const GroupsView& view) {
  return view.size > kTiledSize
             ? 0
             : static_cast<size_t>(view.size) * (kGroupThreads + 1) * sizeof(float);
}

}  // namespace lowbit::cuda

// Round to nearest, with and without a search: grids of groups, codes, and their bit streams. A
// thread fits a group, so that sums are those of the host.
#include "lowbit/quantize/cuda/group_tile.cuh"
#include "lowbit/quantize/cuda/plain_launch.cuh"
#include "lowbit/tensor/packing.h"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void widen(const uint16_t* from, bool brain, int64_t count, float* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  to[i] = brain ? __uint_as_float(static_cast<uint32_t>(from[i]) << 16)
                : __half2float(__ushort_as_half(from[i]));
}

__global__ void check_finite(const float* weight, int64_t count, Faults* faults) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count && !isfinite(weight[i])) {
    atomicMin(&faults->not_finite, static_cast<unsigned long long>(i));
  }
}

// Candidates that are tried side by side.
constexpr int kTried = 4;

// The error of some grids: in order for GridSearch::kError, in eight lanes for kWeighted, as
// squared_error() and rounding_error() of the host.
template <bool kWeighted>
__device__ void errors_of(const Group& group, int bits, const Grid (&grids)[kTried],
                          const float* importance, float (&errors)[kTried]) {
  constexpr int kLanes = kWeighted ? 8 : 1;
  float sums[kTried][kLanes] = {}, low[kTried], high[kTried], inverse[kTried];
  for (int c = 0; c < kTried; ++c) {
    low[c] = -static_cast<float>(grids[c].zero);
    high[c] = static_cast<float>((1 << bits) - 1) - static_cast<float>(grids[c].zero);
    inverse[c] = 1.f / grids[c].scale;
  }
  for (int k = 0; k < group.size; k += kLanes) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      if (kWeighted && k + lane >= group.size) break;
      const float value = group[k + lane];
#pragma unroll
      for (int c = 0; c < kTried; ++c) {
        const float step = clamped(round_to_even(value * inverse[c]), low[c], high[c]);
        const float difference = step * grids[c].scale - value;
        const float square =
            kWeighted ? importance[k + lane] * difference * difference : difference * difference;
        sums[c][lane] += square;
      }
    }
  }
  for (int c = 0; c < kTried; ++c) {
    const float* s = sums[c];
    if constexpr (kWeighted) {
      errors[c] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    } else {
      errors[c] = s[0];
    }
  }
}

template <bool kWeighted>
__device__ Grid searched(const Group& group, const GroupRange& range, const GridRequest& request,
                         const float* importance) {
  Grid best = candidate(range, request, 0);
  float least = INFINITY;
  const int count = candidate_count(range, request);
  for (int first = 0; first < count; first += kTried) {
    Grid grids[kTried];
    float errors[kTried];
    for (int c = 0; c < kTried; ++c) {
      grids[c] = candidate(range, request, min(first + c, count - 1));
    }
    errors_of<kWeighted>(group, request.bits, grids, importance, errors);
    for (int c = 0; c < kTried; ++c) {
      if (!(errors[c] < least)) continue;
      least = errors[c];
      best = grids[c];
    }
  }
  return best;
}

__global__ void __launch_bounds__(kGroupThreads)
    fit_grids(GroupsView view, GridRequest request, const float* importance, GridsOut out) {
  extern __shared__ float tile[];
  const GroupPlaceAt at(view);
  const Group group = load_group(view, at, tile);
  if (!at.valid) return;
  GroupRange range;
  for (int k = 0; k < group.size; ++k) range.add(group[k]);
  Grid grid = candidate(range, request, 0);
  if (isfinite(grid.scale) && request.search == GridSearch::kError) {
    grid = searched<false>(group, range, request, nullptr);
  } else if (isfinite(grid.scale) && request.search == GridSearch::kWeighted) {
    grid = searched<true>(group, range, request, importance + at.group * view.size);
  }
  const int64_t to = at.row * view.stride_out + at.group;
  if (!isfinite(grid.scale)) {
    atomicMin(&out.faults->overflow, static_cast<unsigned long long>(to));
  }
  out.scales[to] = grid.scale;
  if (out.zeros != nullptr) out.zeros[to] = static_cast<uint8_t>(grid.zero);
}

__global__ void grid_codes(GroupsView view, int bits, const float* scales, const uint8_t* zeros,
                           uint8_t* codes) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= view.count() * view.size) return;
  const int64_t group = i / view.size;
  const Grid grid{scales[group], zeros == nullptr ? 1 << (bits - 1) : zeros[group]};
  codes[i] =
      static_cast<uint8_t>(code_of(view.weight[i], grid, static_cast<float>((1 << bits) - 1)));
}

// A thread for eight codes, which take `bits` bytes.
__global__ void pack_codes(const uint8_t* codes, int64_t rows, int64_t cols, int bits,
                           uint8_t* packed) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t eights = (cols + 7) / 8, row = index / eights, first = index % eights * 8;
  if (row >= rows) return;
  const int count = static_cast<int>(min(int64_t{8}, cols - first));
  uint64_t word = 0;
  for (int i = 0; i < count; ++i) {
    word |= static_cast<uint64_t>(codes[row * cols + first + i]) << (i * bits);
  }
  uint8_t* to = packed + row * ((cols * bits + 7) / 8) + first * bits / 8;
  for (int i = 0; i < (count * bits + 7) / 8; ++i) to[i] = static_cast<uint8_t>(word >> (8 * i));
}

}  // namespace

void launch_widen(const uint16_t* from, bool brain, int64_t count, float* to, cudaStream_t stream) {
  launch_plain(widen, blocks_of(count, kThreads), kThreads, 0, stream, from, brain, count, to);
}

void launch_check_finite(const float* weight, int64_t count, Faults* faults, cudaStream_t stream) {
  launch_plain(check_finite, blocks_of(count, kThreads), kThreads, 0, stream, weight, count,
               faults);
}

void launch_fit_grids(const GroupsView& view, const GridRequest& request, const float* importance,
                      const GridsOut& out, cudaStream_t stream) {
  launch_plain(fit_grids, group_blocks(view), kGroupThreads, group_bytes(view), stream, view,
               request, importance, out);
}

void launch_grid_codes(const GroupsView& view, int bits, const float* scales, const uint8_t* zeros,
                       uint8_t* codes, cudaStream_t stream) {
  launch_plain(grid_codes, blocks_of(view.count() * view.size, kThreads), kThreads, 0, stream, view,
               bits, scales, zeros, codes);
}

void launch_pack_codes(const uint8_t* codes, int64_t rows, int64_t cols, int bits, uint8_t* packed,
                       cudaStream_t stream) {
  launch_plain(pack_codes, blocks_of(rows * ((cols + 7) / 8), kThreads), kThreads, 0, stream, codes,
               rows, cols, bits, packed);
}

}  // namespace lowbit::cuda

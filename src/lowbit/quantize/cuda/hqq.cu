// HQQ's iterations, a thread for each group. Errors of all groups are summed as the host does, row
// by row, because their sum decides when to stop.
#include "lowbit/quantize/cuda/group_tile.cuh"
#include "lowbit/quantize/cuda/plain_launch.cuh"
#include "lowbit/quantize/hqq_math.h"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = 256;

__device__ float top_of(int bits) { return static_cast<float>((1 << bits) - 1); }

__global__ void __launch_bounds__(kGroupThreads)
    hqq_start(GroupsView view, int bits, HqqState state) {
  extern __shared__ float tile[];
  const GroupPlaceAt at(view);
  const Group group = load_group(view, at, tile);
  if (!at.valid) return;
  float low = group[0], high = group[0];
  for (int k = 1; k < group.size; ++k) {
    low = fminf(low, group[k]);
    high = fmaxf(high, group[k]);
  }
  const HqqGrid grid = lowbit::hqq_start(low, high, top_of(bits), bits == 4);
  const int64_t to = at.row * view.groups + at.group;
  state.scales[to] = grid.scale;
  state.zeros[to] = grid.zero;
  if (to == 0) {
    *state.best = INFINITY;
    *state.stopped = 0;
  }
}

__global__ void __launch_bounds__(kGroupThreads)
    hqq_step(GroupsView view, int bits, float threshold, HqqState state) {
  extern __shared__ float tile[];
  if (*state.stopped) return;
  const GroupPlaceAt at(view);
  const Group group = load_group(view, at, tile);
  if (!at.valid) return;
  const int64_t to = at.row * view.groups + at.group;
  const HqqGrid grid{state.scales[to], state.zeros[to]};
  const float inverse = 1.f / grid.scale, top = top_of(bits);
  HqqSums sums;
  for (int k = 0; k < group.size; ++k) hqq_add(group[k], grid, inverse, top, threshold, sums);
  state.magnitudes[to] = sums.magnitude;
  state.zeros[to] = sums.zeros / static_cast<float>(group.size);
}

__global__ void sum_rows(GroupsView view, HqqState state) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= view.rows || *state.stopped) return;
  double sum = 0;
  for (int64_t g = 0; g < view.groups; ++g) sum += state.magnitudes[row * view.groups + g];
  state.row_errors[row] = sum;
}

// One block: all its threads read, one adds.
__global__ void decide(int64_t rows, HqqState state) {
  __shared__ double part[kThreads];
  if (*state.stopped) return;
  double sum = 0;
  for (int64_t first = 0; first < rows; first += kThreads) {
    const int64_t row = first + threadIdx.x;
    part[threadIdx.x] = row < rows ? state.row_errors[row] : 0;
    __syncthreads();
    if (threadIdx.x == 0) {
#pragma unroll 16
      for (int i = 0; i < kThreads; ++i) sum += part[i];
    }
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  if (sum < *state.best) {
    *state.best = sum;
  } else {
    *state.stopped = 1;
  }
}

__global__ void __launch_bounds__(kGroupThreads) refine(GroupsView view, int bits, HqqState state) {
  extern __shared__ float tile[];
  const GroupPlaceAt at(view);
  const Group group = load_group(view, at, tile);
  if (!at.valid) return;
  const int64_t to = at.row * view.groups + at.group;
  const HqqGrid grid =
      hqq_refined(group, group.size, {state.scales[to], state.zeros[to]}, top_of(bits));
  state.scales[to] = grid.scale;
  state.zeros[to] = grid.zero;
}

// Scale and zero as the format stores them.
__global__ void finish_grids(GroupsView view, HqqState state, Faults* faults) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= view.count()) return;
  const float scale = half_rounded(1.f / state.scales[i]);
  const float zero = half_rounded(state.zeros[i]);
  if (!isfinite(scale) || !isfinite(zero)) {
    atomicMin(&faults->overflow, static_cast<unsigned long long>(i));
  }
  state.scales[i] = scale;
  state.zeros[i] = zero;
}

__global__ void write_codes(GroupsView view, int bits, HqqState state, uint8_t* codes) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= view.count() * view.size) return;
  const int64_t group = i / view.size;
  const float scale = state.scales[group];
  const float inverse = scale > 0 ? 1.f / scale : 0.f;
  codes[i] = static_cast<uint8_t>(
      clamped(round_to_even(view.weight[i] * inverse + state.zeros[group]), 0.f, top_of(bits)));
}

__global__ void finish_offsets(GroupsView view, HqqState state) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < view.count()) state.zeros[i] = -state.scales[i] * state.zeros[i];
}

}  // namespace

void launch_hqq_start(const GroupsView& view, int bits, const HqqState& state,
                      cudaStream_t stream) {
  launch_plain(hqq_start, group_blocks(view), kGroupThreads, group_bytes(view), stream, view, bits,
               state);
}

void launch_hqq_step(const GroupsView& view, int bits, const HqqState& state, cudaStream_t stream) {
  launch_plain(hqq_step, group_blocks(view), kGroupThreads, group_bytes(view), stream, view, bits,
               hqq_threshold(), state);
  launch_plain(sum_rows, blocks_of(view.rows, kThreads), kThreads, 0, stream, view, state);
  launch_plain(decide, dim3(1), kThreads, 0, stream, view.rows, state);
}

void launch_hqq_codes(const GroupsView& view, int bits, const HqqState& state, Faults* faults,
                      uint8_t* codes, cudaStream_t stream) {
  launch_plain(refine, group_blocks(view), kGroupThreads, group_bytes(view), stream, view, bits,
               state);
  launch_plain(finish_grids, blocks_of(view.count(), kThreads), kThreads, 0, stream, view, state,
               faults);
  launch_plain(write_codes, blocks_of(view.count() * view.size, kThreads), kThreads, 0, stream,
               view, bits, state, codes);
  launch_plain(finish_offsets, blocks_of(view.count(), kThreads), kThreads, 0, stream, view, state);
}

}  // namespace lowbit::cuda

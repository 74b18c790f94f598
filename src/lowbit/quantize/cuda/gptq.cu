// GPTQ's loop: kGptqSteps columns are rounded one after another, eight lanes to a row, and their
// errors taken out of the columns behind. Every weight loses the errors of the steps before it one
// by one, as on the host, wherever blocks end: so the codes are the host's.
#include "lowbit/quantize/cuda/kernels.h"
#include "lowbit/quantize/cuda/plain_launch.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 8;  // of a row
constexpr int kRowsOfBlock = kThreads / kLanes;
constexpr int kOwned = kGptqSteps / kLanes;  // columns of a lane: lane, lane + 8, ...

__global__ void zero_columns(float* weight, int64_t rows, int64_t cols, const uint8_t* marked) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= cols || !marked[column]) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) weight[row * cols + column] = 0;
}

__global__ void permute(const float* weight, int64_t rows, int64_t cols, const int32_t* order,
                        float* permuted) {
  const int64_t step = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (step >= cols) return;
  const int32_t column = order[step];
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    permuted[row * cols + step] = weight[row * cols + column];
  }
}

// The factor's rows of these steps: factor[s][t] of shared memory is factor[begin + t][begin + s].
__device__ void load_factor(const GptqRound& g, int64_t begin, int steps, float* factor) {
  for (int i = static_cast<int>(threadIdx.x); i < kGptqSteps * kGptqSteps; i += kThreads) {
    const int t = i / kGptqSteps, s = i % kGptqSteps;
    const bool there = t < steps && s <= t;
    factor[s * (kGptqSteps + 1) + t] = there ? g.factor[(begin + t) * g.cols + begin + s] : 0.f;
  }
}

__global__ void __launch_bounds__(kThreads) gptq_steps(GptqRound g, int64_t begin, int steps) {
  extern __shared__ float factor[];
  constexpr int kStride = kGptqSteps + 1;
  load_factor(g, begin, steps, factor);
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t own = static_cast<int64_t>(blockIdx.x) * kRowsOfBlock + threadIdx.x / kLanes;
  const int64_t row = min(own, g.rows - 1);  // all lanes take part in the shuffles
  const float largest = static_cast<float>((1 << g.bits) - 1);
  float weights[kOwned], scales[kOwned];
  int zeros[kOwned];
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    const int64_t step = min(begin + i * kLanes + lane, g.cols - 1);
    weights[i] = g.permuted[row * g.cols + step];
    const int64_t group = row * g.groups + (g.by_step ? step : g.order[step]) / g.group_size;
    scales[i] = g.scales[group];
    zeros[i] = g.zeros == nullptr ? 1 << (g.bits - 1) : g.zeros[group];
  }
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
#pragma unroll 1
    for (int owner = 0; owner < kLanes; ++owner) {
      const int s = i * kLanes + owner;
      if (s >= steps) break;
      const float weight = __shfl_sync(0xffffffffu, weights[i], owner, kLanes);
      const Grid grid{__shfl_sync(0xffffffffu, scales[i], owner, kLanes),
                      __shfl_sync(0xffffffffu, zeros[i], owner, kLanes)};
      const float code = code_of(weight, grid, largest);
      const float* column = factor + s * kStride;
      const float error = (weight - value_of(code, grid)) * (1.f / column[s]);
      if (lane == owner && own < g.rows) {
        const int64_t place = g.codes_by_step ? begin + s : g.order[begin + s];
        g.codes[row * g.cols + place] = static_cast<uint8_t>(code);
        g.errors[row * kGptqSteps + s] = error;
      }
#pragma unroll
      for (int j = i; j < kOwned; ++j) {
        const float moved = weights[j] - error * column[j * kLanes + lane];
        weights[j] = j * kLanes + lane > s ? moved : weights[j];
      }
    }
  }
}

// The update: a block of 16 x 16 threads has a tile of 128 rows x 128 columns, each thread 8 x 8 of
// it, 16 apart.
constexpr int kTile = 128, kOwn = kTile / 16, kDepth = 16, kTileStride = kTile + 1;

// tile[k][line] = from[line][k]; zeros beyond.
__device__ void load_tile(const float* from, int64_t stride, int64_t lines, int depth,
                          float* tile) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kDepth; i += kThreads) {
    const int line = i / kDepth, k = i % kDepth;
    tile[k * kTileStride + line] = line < lines && k < depth ? from[line * stride + k] : 0.f;
  }
}

__global__ void __launch_bounds__(kThreads) gptq_update(GptqRound g, int64_t begin, int64_t end) {
  __shared__ float errors[kDepth * kTileStride], factor[kDepth * kTileStride];
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kTile;
  const int64_t col0 = end + static_cast<int64_t>(blockIdx.x) * kTile;
  const int x = static_cast<int>(threadIdx.x) % 16, y = static_cast<int>(threadIdx.x) / 16;
  float c[kOwn][kOwn] = {};
  const auto for_own = [&](const auto& body) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const int64_t row = row0 + i * 16 + y, col = col0 + j * 16 + x;
        if (row < g.rows && col < g.cols) body(c[i][j], g.permuted[row * g.cols + col]);
      }
    }
  };
  for_own([](float& own, float& stored) { own = stored; });
  const int steps = static_cast<int>(end - begin);
  for (int k0 = 0; k0 < steps; k0 += kDepth) {
    load_tile(g.errors + row0 * kGptqSteps + k0, kGptqSteps, g.rows - row0, steps - k0, errors);
    load_tile(g.factor + col0 * g.cols + begin + k0, g.cols, g.cols - col0, steps - k0, factor);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      float from_errors[kOwn], from_factor[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        from_errors[i] = errors[k * kTileStride + i * 16 + y];
        from_factor[i] = factor[k * kTileStride + i * 16 + x];
      }
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
#pragma unroll
        for (int j = 0; j < kOwn; ++j) c[i][j] -= from_errors[i] * from_factor[j];
      }
    }
    __syncthreads();
  }
  for_own([](float& own, float& stored) { stored = own; });
}

// A thread for a column of some rows.
dim3 column_blocks(int64_t rows, int64_t cols) {
  return dim3(blocks_of(cols, kThreads).x, static_cast<unsigned>(rows < 1024 ? rows : 1024));
}

}  // namespace

void launch_zero_columns(float* weight, int64_t rows, int64_t cols, const uint8_t* marked,
                         cudaStream_t stream) {
  launch_plain(zero_columns, column_blocks(rows, cols), kThreads, 0, stream, weight, rows, cols,
               marked);
}

void launch_permute(const float* weight, int64_t rows, int64_t cols, const int32_t* order,
                    float* permuted, cudaStream_t stream) {
  launch_plain(permute, column_blocks(rows, cols), kThreads, 0, stream, weight, rows, cols, order,
               permuted);
}

void launch_gptq_steps(const GptqRound& round, int64_t begin, int64_t end, cudaStream_t stream) {
  launch_plain(gptq_steps, blocks_of(round.rows, kRowsOfBlock), kThreads,
               kGptqSteps * (kGptqSteps + 1) * sizeof(float), stream, round, begin,
               static_cast<int>(end - begin));
}

void launch_gptq_update(const GptqRound& round, int64_t begin, int64_t end, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((round.cols - end + kTile - 1) / kTile),
                  static_cast<unsigned>((round.rows + kTile - 1) / kTile));
  launch_plain(gptq_update, grid, kThreads, 0, stream, round, begin, end);
}

}  // namespace lowbit::cuda

// Hessians of calibration inputs, x^T x, by tensor cores (mma.sync, sm_80 and up): a block of
// threads makes a tile of 128 x 128 of the lower half, always over the tokens in order.
#include "lowbit/quantize/cuda/kernels.h"
#include "lowbit/quantize/cuda/plain_launch.cuh"
#include "lowbit/runtime/cuda/mma.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kTile = kMomentTile;
constexpr int kStep = 32;  // tokens that are in shared memory as one stage
constexpr int kStages = 4;
constexpr int kThreads = 256;  // eight warps, of 64 x 32 each
constexpr int kRowBytes = kTile * 2;
constexpr int kStageBytes = kStep * kRowBytes;

// The largest exponent of each column: a block for 32 columns, each thread some tokens.
__global__ void column_exponents(const float* x, int64_t tokens, int64_t cols, int* exponents) {
  __shared__ float largest[8][32];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * 32 + lane;
  float value = 0;
  if (column < cols) {
    for (int64_t t = warp; t < tokens; t += 8) {
      const float magnitude = fabsf(x[t * cols + column]);
      value = magnitude > value || isnan(magnitude) ? magnitude : value;
    }
  }
  largest[warp][lane] = value;
  __syncthreads();
  if (warp != 0) return;
  for (int w = 1; w < 8; ++w) {
    const float other = largest[w][lane];
    value = other > value || isnan(other) ? other : value;
  }
  // Columns between 1024 and 2048 at most. NaN and infinity show in the sums.
  exponents[column] = value > 0 && isfinite(value) ? max(ilogbf(value) - 10, -110) : 0;
}

// A thread for two columns of a token.
__global__ void to_halves(const float* x, int64_t tokens, int64_t cols, int64_t padded,
                          const int* exponents, uint32_t* halves) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t token = index / (padded / 2), column = index % (padded / 2) * 2;
  if (token >= tokens) return;
  uint32_t word = 0;
  for (int i = 0; i < 2; ++i) {
    if (column + i >= cols) continue;
    const float value = x[token * cols + column + i];
    const float scaled = value * exp2f(static_cast<float>(-exponents[column + i]));
    word |= static_cast<uint32_t>(float_to_half(scaled)) << (16 * i);
  }
  halves[index] = word;
}

// The 16 bytes of chunk `chunk` of row `row` of a stage.
__device__ uint32_t place_in_stage(int row, int chunk) {
  return static_cast<uint32_t>(row * kRowBytes + (chunk ^ (row & 7)) * 16);
}

__device__ void load_stage(const uint16_t* from, int64_t token, int64_t tokens, int64_t padded,
                           uint8_t* stage) {
  for (int i = static_cast<int>(threadIdx.x); i < kStep * 16; i += kThreads) {
    const int row = i / 16, chunk = i % 16;
    uint8_t* to = stage + place_in_stage(row, chunk);
    if (token + row < tokens) {
      copy16_async(to, from + (token + row) * padded + chunk * 8);
    } else {
      *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
    }
  }
}

__device__ void load_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ void multiply_halves(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Products of a stage: rows of the result from column `m` of the first tile on, columns from `n` of
// the second.
__device__ void multiply_stage(uint32_t first, uint32_t second, int m, int n,
                               float (&sums)[4][4][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int k = 0; k < kStep; k += 16) {
    uint32_t a[4][4], b[2][4];
    // Matrices of 8 x 8: tokens 0-7 and 8-15 of the step, columns 0-7 and 8-15.
    const int token_a = k + lane % 8 + lane / 16 * 8, column_a = lane / 8 % 2;
    const int token_b = k + lane % 8 + lane / 8 % 2 * 8, column_b = lane / 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      load_transposed(a[i], first + place_in_stage(token_a, (m + i * 16) / 8 + column_a));
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      load_transposed(b[j], second + place_in_stage(token_b, (n + j * 16) / 8 + column_b));
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        multiply_halves(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
      }
    }
  }
}

// Adds the sums to the Hessian, the scales of the columns undone.
__device__ void add_sums(const float (&sums)[4][4][4], int64_t row0, int64_t col0, int64_t cols,
                         const int* exponents, double* hessian) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t row = row0 + i * 16 + lane / 4 + e / 2 * 8;
        const int64_t col = col0 + j * 8 + lane % 4 * 2 + e % 2;
        if (row >= cols || col > row) continue;
        hessian[row * cols + col] +=
            scalbn(static_cast<double>(sums[i][j][e]), exponents[row] + exponents[col]);
      }
    }
  }
}

// Tile number `index` of the lower half, rows of tiles one after another.
__device__ int2 tile_of(int index) {
  int row = static_cast<int>((sqrtf(8.f * static_cast<float>(index) + 1.f) - 1.f) * 0.5f);
  while (row * (row + 1) / 2 > index) --row;
  while ((row + 1) * (row + 2) / 2 <= index) ++row;
  return make_int2(row, index - row * (row + 1) / 2);
}

__global__ void __launch_bounds__(kThreads, 2)
    add_moments(const uint16_t* halves, int64_t tokens, int64_t cols, int64_t padded,
                const int* exponents, double* hessian) {
  extern __shared__ __align__(128) uint8_t shared[];
  const int2 tile = tile_of(static_cast<int>(blockIdx.x));
  const uint16_t* first = halves + static_cast<int64_t>(tile.x) * kTile;
  const uint16_t* second = halves + static_cast<int64_t>(tile.y) * kTile;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int m = warp / 4 * 64, n = warp % 4 * 32;
  const int64_t steps = (tokens + kStep - 1) / kStep;
  const auto load = [&](int64_t step) {
    if (step < steps) {
      uint8_t* stage = shared + step % kStages * 2 * kStageBytes;
      load_stage(first, step * kStep, tokens, padded, stage);
      load_stage(second, step * kStep, tokens, padded, stage + kStageBytes);
    }
    copies_commit();
  };
  for (int64_t step = 0; step < kStages - 1; ++step) load(step);
  float sums[4][4][4] = {};
  for (int64_t step = 0; step < steps; ++step) {
    copies_wait<kStages - 2>();
    __syncthreads();
    load(step + kStages - 1);
    const auto stage =
        static_cast<uint32_t>(__cvta_generic_to_shared(shared + step % kStages * 2 * kStageBytes));
    multiply_stage(stage, stage + kStageBytes, m, n, sums);
  }
  add_sums(sums, static_cast<int64_t>(tile.x) * kTile + m, static_cast<int64_t>(tile.y) * kTile + n,
           cols, exponents, hessian);
}

}  // namespace

void launch_add_moments(const float* x, int64_t tokens, int64_t cols, uint16_t* halves,
                        int* exponents, double* hessian, cudaStream_t stream) {
  const int64_t padded = padded_columns(cols), tiles = padded / kTile;
  launch_plain(column_exponents, blocks_of(padded, 32), kThreads, 0, stream, x, tokens, cols,
               exponents);
  launch_plain(to_halves, blocks_of(tokens * padded / 2, kThreads), kThreads, 0, stream, x, tokens,
               cols, padded, exponents, reinterpret_cast<uint32_t*>(halves));
  launch_plain(add_moments, dim3(static_cast<unsigned>(tiles * (tiles + 1) / 2)), kThreads,
               kStages * 2 * kStageBytes, stream, halves, tokens, cols, padded, exponents, hessian);
}

}  // namespace lowbit::cuda

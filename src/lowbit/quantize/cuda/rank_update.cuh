// c -= a * b^T in shared memory tiles, c's elements each in the order of the common columns.
#pragma once

#include <cstdint>

namespace lowbit::cuda {

// fp64 rounds once; fp32 as the host, which rounds the product too.
__device__ inline double minus_product(double c, double a, double b) { return fma(-a, b, c); }
__device__ inline float minus_product(float c, float a, float b) {
  return __fsub_rn(c, __fmul_rn(a, b));
}

// A block of 256 threads, 16 x 16, each with kM x kN elements of c, 16 apart.
template <typename T, int kM, int kN>
struct RankUpdate {
  static constexpr int kThreads = 256, kDepth = 16;
  static constexpr int kTileM = 16 * kM, kTileN = 16 * kN;
  static constexpr int kStrideA = kTileM + 1, kStrideB = kTileN + 1;
  static constexpr size_t kSharedBytes = sizeof(T) * kDepth * (kStrideA + kStrideB);

  // Rows of a and b (both with `depth` columns) from 0 on; those from `rows` and `cols` on count as
  // zeros.
  __device__ static void run(const T* a, int64_t stride_a, int64_t rows, const T* b,
                             int64_t stride_b, int64_t cols, int depth, T* shared, T (&c)[kM][kN]) {
    T* tile_a = shared;
    T* tile_b = shared + kDepth * kStrideA;
    const int x = static_cast<int>(threadIdx.x) % 16, y = static_cast<int>(threadIdx.x) / 16;
    for (int k0 = 0; k0 < depth; k0 += kDepth) {
      load(a + k0, stride_a, rows, depth - k0, kTileM, kStrideA, tile_a);
      load(b + k0, stride_b, cols, depth - k0, kTileN, kStrideB, tile_b);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDepth; ++k) {
        T from_a[kM], from_b[kN];
#pragma unroll
        for (int i = 0; i < kM; ++i) from_a[i] = tile_a[k * kStrideA + i * 16 + y];
#pragma unroll
        for (int j = 0; j < kN; ++j) from_b[j] = tile_b[k * kStrideB + j * 16 + x];
#pragma unroll
        for (int i = 0; i < kM; ++i) {
#pragma unroll
          for (int j = 0; j < kN; ++j) c[i][j] = minus_product(c[i][j], from_a[i], from_b[j]);
        }
      }
      __syncthreads();
    }
  }

 private:
  __device__ static void load(const T* from, int64_t stride, int64_t count, int depth, int tile,
                              int tile_stride, T* to) {
    for (int i = static_cast<int>(threadIdx.x); i < tile * kDepth; i += kThreads) {
      const int row = i / kDepth, k = i % kDepth;
      to[k * tile_stride + row] = row < count && k < depth ? from[row * stride + k] : T{0};
    }
  }
};

}  // namespace lowbit::cuda

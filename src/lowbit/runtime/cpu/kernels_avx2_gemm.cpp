// The register tile of fp32 matrix products with AVX2 and FMA: 6 x 16, in 12 registers.
#include <immintrin.h>

#include "lowbit/runtime/cpu/gemm_tiles.h"

namespace lowbit::cpu::avx2 {

void gemm_tile(int64_t k, const float* a, const float* b, float* c, int64_t c_stride,
               bool accumulate) {
  __m256 sums[6][2];
  for (auto& row : sums) row[0] = row[1] = _mm256_setzero_ps();
  for (int64_t p = 0; p < k; ++p, a += 6, b += 16) {
    const __m256 left = _mm256_load_ps(b), right = _mm256_load_ps(b + 8);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      const __m256 value = _mm256_broadcast_ss(a + i);
      sums[i][0] = _mm256_fmadd_ps(value, left, sums[i][0]);
      sums[i][1] = _mm256_fmadd_ps(value, right, sums[i][1]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      float* out = c + i * c_stride + j * 8;
      const __m256 sum = accumulate ? _mm256_add_ps(_mm256_loadu_ps(out), sums[i][j]) : sums[i][j];
      _mm256_storeu_ps(out, sum);
    }
  }
}

}  // namespace lowbit::cpu::avx2

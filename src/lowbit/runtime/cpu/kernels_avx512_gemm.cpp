// The register tile of fp32 matrix products with AVX-512: 14 x 32, in 28 registers.
#include <immintrin.h>

#include "lowbit/runtime/cpu/gemm_tiles.h"

namespace lowbit::cpu::avx512 {

void gemm_tile(int64_t k, const float* a, const float* b, float* c, int64_t c_stride,
               bool accumulate) {
  constexpr int kRows = 14;
  __m512 sums[kRows][2];
#pragma GCC unroll 14
  for (int i = 0; i < kRows; ++i) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
  for (int64_t p = 0; p < k; ++p, a += kRows, b += 32) {
    const __m512 left = _mm512_load_ps(b), right = _mm512_load_ps(b + 16);
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
      const __m512 value = _mm512_set1_ps(a[i]);
      sums[i][0] = _mm512_fmadd_ps(value, left, sums[i][0]);
      sums[i][1] = _mm512_fmadd_ps(value, right, sums[i][1]);
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      float* out = c + i * c_stride + j * 16;
      const __m512 sum = accumulate ? _mm512_add_ps(_mm512_loadu_ps(out), sums[i][j]) : sums[i][j];
      _mm512_storeu_ps(out, sum);
    }
  }
}

}  // namespace lowbit::cpu::avx512

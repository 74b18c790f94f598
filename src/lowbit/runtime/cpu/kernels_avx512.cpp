// Elementwise kernels with AVX-512.
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/lanes16.h"

namespace lowbit::cpu::avx512 {

void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
  const __m512 one = _mm512_set1_ps(1.f), sign = _mm512_set1_ps(-0.f);
  for (int64_t i = 0; i < count; i += 16) {
    const auto lanes = static_cast<__mmask16>(Lanes16::below(count - i));
    const __m512 g = _mm512_maskz_loadu_ps(lanes, gate + i);
    const __m512 below = _mm512_add_ps(one, Lanes16::exp(_mm512_xor_ps(g, sign)));
    _mm512_mask_storeu_ps(
        out + i, lanes,
        _mm512_mul_ps(_mm512_div_ps(g, below), _mm512_maskz_loadu_ps(lanes, up + i)));
  }
}

}  // namespace lowbit::cpu::avx512

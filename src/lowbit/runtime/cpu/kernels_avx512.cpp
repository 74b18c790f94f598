// Elementwise kernels with AVX-512.
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/lanes16.h"

namespace lowbit::cpu::avx512 {

// gate / (1 + e^-gate) * up. Only e to negative powers is needed: with e = e^-|gate|, gate is divided
// by 1 + e, times e if it is negative.
void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
  const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1.f), two = _mm512_set1_ps(2.f);
  for (int64_t i = 0; i < count; i += 16) {
    const auto lanes = static_cast<__mmask16>(Lanes16::below(count - i));
    const __m512 g = _mm512_maskz_loadu_ps(lanes, gate + i);
    const __m512 e = Lanes16::exp(_mm512_sub_ps(zero, _mm512_abs_ps(g)));
    const __m512 below = _mm512_add_ps(one, e);
    // 1 / below by Newton's method, a third of a division's time.
    __m512 inverse = _mm512_rcp14_ps(below);
    inverse = _mm512_mul_ps(inverse, _mm512_fnmadd_ps(below, inverse, two));
    const __mmask16 negative = _mm512_cmp_ps_mask(g, zero, _CMP_LT_OQ);
    const __m512 above = _mm512_mask_mul_ps(g, negative, g, e);
    _mm512_mask_storeu_ps(
        out + i, lanes,
        _mm512_mul_ps(_mm512_mul_ps(above, inverse), _mm512_maskz_loadu_ps(lanes, up + i)));
  }
}

}  // namespace lowbit::cpu::avx512

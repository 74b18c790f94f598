// 16 floats of attention_tiles.h in AVX-512. In an anonymous namespace: see kernels.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "lowbit/runtime/cpu/attention_tiles.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

struct Lanes16 {
  static constexpr int64_t kLanes = 16;
  static constexpr int kWide = 4;  // registers beside each other for 6 rows: 24 sums of 32
  using Float = __m512;

  static inline Float float_zero() { return _mm512_setzero_ps(); }
  static inline Float floats(float value) { return _mm512_set1_ps(value); }
  static inline Float broadcast(const float* at) { return _mm512_set1_ps(*at); }
  static inline Float load_floats(const float* at) { return _mm512_load_ps(at); }
  static inline void store_floats(float* at, Float v) { _mm512_store_ps(at, v); }
  static inline Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static inline Float subtract(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static inline Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static inline Float multiply_add(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static inline Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
  static inline float max_lanes(Float v) { return _mm512_reduce_max_ps(v); }
  static inline float sum_lanes(Float v) { return _mm512_reduce_add_ps(v); }
  static inline float first(Float v) { return _mm512_cvtss_f32(v); }
  // b in the lanes [first, last), else a.
  static inline Float keep(Float a, Float b, int64_t first, int64_t last) {
    const __mmask16 seen = static_cast<__mmask16>(below(last) & ~below(first));
    return _mm512_mask_blend_ps(seen, a, b);
  }
  static inline uint32_t below(int64_t count) {
    return count <= 0 ? 0u : count >= 16 ? 0xffffu : (1u << count) - 1;
  }
  // As exp_falling8 of simd_avx2.h.
  static inline Float exp(Float x) {
    const __mmask16 normal = _mm512_cmp_ps_mask(x, floats(kFallingEnd), _CMP_NLT_UQ);
    x = multiply(x, floats(1.44269504f));
    const Float n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Float r = subtract(x, n);
    Float p = floats(kFallingTerms[0]);
#pragma GCC unroll 4
    for (int i = 1; i < 5; ++i) p = multiply_add(p, r, floats(kFallingTerms[i]));
    p = multiply_add(p, r, floats(1.f));
    return _mm512_maskz_scalef_ps(normal, p, n);
  }
};

}  // namespace
}  // namespace lowbit::cpu

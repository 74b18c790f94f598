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
  // As exp8 of simd_avx2.h.
  static inline Float exp(Float x) {
    x = _mm512_max_ps(floats(-105.f), _mm512_min_ps(floats(89.f), x));
    const Float n = _mm512_roundscale_ps(multiply(x, floats(1.44269504f)),
                                         _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    Float r = _mm512_fnmadd_ps(n, floats(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, floats(-2.12194440e-4f), r);
    Float p = floats(1.9875691500e-4f);
    p = multiply_add(p, r, floats(1.3981999507e-3f));
    p = multiply_add(p, r, floats(8.3334519073e-3f));
    p = multiply_add(p, r, floats(4.1665795894e-2f));
    p = multiply_add(p, r, floats(1.6666665459e-1f));
    p = multiply_add(p, r, floats(5.0000001201e-1f));
    p = add(multiply_add(p, multiply(r, r), r), floats(1.f));
    return _mm512_scalef_ps(p, n);
  }
};

}  // namespace
}  // namespace lowbit::cpu

// Two tiles (16 rows) in a 512-bit register: the first in the lower half, the other, `tile_step`
// units of the array read further on, in the upper. In an anonymous namespace: see kernels.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "lowbit/runtime/cpu/kernels.h"

namespace lowbit::cpu {
namespace {

struct Avx512 {
  static constexpr int kTiles = 2;
  static constexpr int kTokens = 6;  // 12 chains hide vpdpbusd's latency of 5 on two ports
  using Int = __m512i;
  using Float = __m512;

  static inline Int halves(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
  static inline Int load_codes(const uint8_t* codes, int64_t step) {
    return halves(_mm256_load_si256(reinterpret_cast<const __m256i*>(codes)),
                  _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + step)));
  }
  static inline Int int_zero() { return _mm512_setzero_si512(); }
  static inline Int ints(int value) { return _mm512_set1_epi32(value); }
  static inline Int bytes(char value) { return _mm512_set1_epi8(value); }
  static inline Int repeat(__m128i v) { return _mm512_broadcast_i32x4(v); }
  static inline Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
  static inline Int bit_xor(Int a, Int b) { return _mm512_xor_si512(a, b); }
  static inline Int bit_or(Int a, Int b) { return _mm512_or_si512(a, b); }
  static inline Int shift_right(Int v, int by) { return _mm512_srli_epi16(v, by); }
  static inline Int shift_left(Int v, int by) { return _mm512_slli_epi16(v, by); }
  static inline Int look_up(Int table, Int at) { return _mm512_shuffle_epi8(table, at); }
  static inline Int subtract(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static inline Int dot(Int sum, Int weights, Int x) {
    return _mm512_dpbusd_epi32(sum, weights, x);
  }
  static inline Int broadcast_quad(const int8_t* x) {
    int32_t quad;
    __builtin_memcpy(&quad, x, 4);
    return _mm512_set1_epi32(quad);
  }

  static inline Int add_bytes(Int a, Int b) { return _mm512_add_epi8(a, b); }
  // The lowest byte of each int, four times.
  static inline Int repeat_bytes(Int v) {
    return _mm512_shuffle_epi8(
        v, repeat(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12)));
  }
  static inline Int load_ints(const void* at) { return _mm512_load_si512(at); }
  static inline void store_ints(void* at, Int v) { _mm512_store_si512(at, v); }

  static inline Float float_zero() { return _mm512_setzero_ps(); }
  static inline Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
  static inline Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static inline Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static inline Float multiply_add(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static inline Float broadcast(const float* at) { return _mm512_set1_ps(*at); }

  static inline Float load_floats(const float* at) { return _mm512_load_ps(at); }
  static inline void store_floats(float* at, Float v) { _mm512_store_ps(at, v); }

  static inline Float halves(__m256 low, __m256 high) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
  }
  // The 16 rows' scales or offsets: `at` counts groups of 8 rows.
  static inline Float load_values(const GroupValues& from, int64_t at, int64_t step) {
    switch (from.form) {
      case GroupValues::Form::kF16: {
        const __m128i* low = static_cast<const __m128i*>(from.values) + at;
        return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(_mm_load_si128(low)),
                                                       _mm_load_si128(low + step), 1));
      }
      case GroupValues::Form::kF32: {
        const float* low = static_cast<const float*>(from.values) + at * 8;
        return halves(_mm256_load_ps(low), _mm256_load_ps(low + step * 8));
      }
      case GroupValues::Form::kMultiples:
        break;
    }
    const auto* bytes = static_cast<const uint8_t*>(from.values) + at * 8;
    const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
    const __m128i high = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes + step * 8));
    const Int multiples = _mm512_cvtepi8_epi32(_mm_unpacklo_epi64(low, high));
    const float* supers = from.supers + (at >> from.super_shift) * 8;
    const Float factors =
        halves(_mm256_load_ps(supers), _mm256_load_ps(supers + (step >> from.super_shift) * 8));
    return multiply(to_float(multiples), factors);
  }
  static inline Int load_zeros(const uint8_t* zeros, int64_t at, int64_t step) {
    const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros + at * 8));
    const __m128i high = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros + (at + step) * 8));
    return _mm512_cvtepu8_epi32(_mm_unpacklo_epi64(low, high));
  }
  // The rows that exist, with their bias; the upper half only if it is a tile of its own.
  static inline void store_rows(const PackedMatrix& w, int64_t tile, int64_t step, Float sum,
                                float* y) {
    const int64_t left = w.rows - tile * 8, lanes = step == 0 ? 8 : 16;
    const int64_t count = left < lanes ? left : lanes;
    const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
    if (w.bias != nullptr) sum = add(sum, _mm512_maskz_loadu_ps(mask, w.bias + tile * 8));
    _mm512_mask_storeu_ps(y + tile * 8, mask, sum);
  }
};

}  // namespace
}  // namespace lowbit::cpu

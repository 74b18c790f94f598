// How the AVX2 kernels read scales and codes of quantized tiles. In an anonymous namespace: see
// kernels.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "lowbit/runtime/cpu/kernels.h"

namespace lowbit::cpu {
namespace {

// kIq4NlTable of tensor/scheme.h, in both halves of a register.
inline __m256i iq4_table() {
  return _mm256_broadcastsi128_si256(
      _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
}

// The 8 rows' floats at index `at` of scales or offsets.
inline __m256 load_rows(const void* values, bool half, int64_t at) {
  if (half) {
    return _mm256_cvtph_ps(_mm_load_si128(static_cast<const __m128i*>(values) + at));
  }
  return _mm256_load_ps(static_cast<const float*>(values) + at * 8);
}

// base - zero, or base.
inline __m256i load_addend(const PackedMatrix& w, int64_t at) {
  const __m256i base = _mm256_set1_epi32(w.base);
  if (w.affine != Affine::kZeros) return base;
  const __m128i zeros = _mm_loadl_epi64(
      reinterpret_cast<const __m128i*>(static_cast<const uint8_t*>(w.shifts) + at * 8));
  return _mm256_sub_epi32(base, _mm256_cvtepu8_epi32(zeros));
}

}  // namespace
}  // namespace lowbit::cpu

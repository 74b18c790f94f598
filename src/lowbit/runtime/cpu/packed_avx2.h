// How the AVX2 kernels read packed tiles and write their rows. In an anonymous namespace: see
// kernels.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "lowbit/runtime/cpu/kernels.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

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

inline bool is_dense(Storage storage) {
  return storage == Storage::kF32 || storage == Storage::kF16 || storage == Storage::kBF16;
}

// The 8 rows of column `at`, counted over all tiles.
inline __m256 load_dense(Storage storage, const uint8_t* codes, int64_t at) {
  if (storage == Storage::kF32)
    return _mm256_load_ps(reinterpret_cast<const float*>(codes) + at * 8);
  const __m128i half = _mm_load_si128(reinterpret_cast<const __m128i*>(codes) + at);
  if (storage == Storage::kF16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

// How one group turns stored integers into weights, with the roundings of dequantize().
struct Group {
  __m256 scale, offset;
  __m256i addend;
  bool has_offset;

  Group(const PackedMatrix& w, int64_t at)
      : scale(load_rows(w.scales, w.half_scales, at)),
        offset(_mm256_setzero_ps()),
        addend(load_addend(w, at)),
        has_offset(w.affine == Affine::kOffsets) {
    if (has_offset) offset = load_rows(w.shifts, w.half_scales, at);
  }

  __m256 weights(__m256i stored) const {
    const __m256 v = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_add_epi32(stored, addend)));
    return has_offset ? _mm256_add_ps(v, offset) : v;
  }
};

// Quad number `quad` of a block, as signed bytes.
inline __m256i load_quad(Storage storage, const uint8_t* block, int quad) {
  const __m256i* at = reinterpret_cast<const __m256i*>(block);
  if (storage == Storage::kS8) return _mm256_load_si256(at + quad);
  const __m256i both = _mm256_load_si256(at + quad / 2);
  const __m256i nibbles =
      _mm256_and_si256(quad % 2 == 0 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
  return storage == Storage::kU4 ? nibbles : _mm256_shuffle_epi8(iq4_table(), nibbles);
}

// The 4 columns of a quad of signed bytes, as int32.
inline void split_quad(__m256i quad, __m256i (&columns)[4]) {
  columns[0] = _mm256_srai_epi32(_mm256_slli_epi32(quad, 24), 24);
  columns[1] = _mm256_srai_epi32(_mm256_slli_epi32(quad, 16), 24);
  columns[2] = _mm256_srai_epi32(_mm256_slli_epi32(quad, 8), 24);
  columns[3] = _mm256_srai_epi32(quad, 24);
}

// The rows of a tile that exist, with their bias. y: [rows]
inline void store_rows(const PackedMatrix& w, int64_t tile, __m256 sum, float* y) {
  if (w.bias != nullptr) sum = _mm256_add_ps(sum, _mm256_load_ps(w.bias + tile * 8));
  const int64_t rows = w.rows - tile * 8;
  if (rows >= 8) {
    _mm256_storeu_ps(y + tile * 8, sum);
  } else {
    _mm256_maskstore_ps(y + tile * 8, lane_mask(rows), sum);
  }
}

}  // namespace
}  // namespace lowbit::cpu

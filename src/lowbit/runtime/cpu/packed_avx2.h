// How the AVX2 kernels read packed tiles and write their rows. In an anonymous namespace: see
// kernels.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "lowbit/runtime/cpu/kernels.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

// The 8 rows' scales or offsets of group `at`, counted over all tiles.
inline __m256 load_values(const GroupValues& from, int64_t at) {
  switch (from.form) {
    case GroupValues::Form::kF16:
      return _mm256_cvtph_ps(_mm_load_si128(static_cast<const __m128i*>(from.values) + at));
    case GroupValues::Form::kF32:
      return _mm256_load_ps(static_cast<const float*>(from.values) + at * 8);
    case GroupValues::Form::kMultiples:
      break;
  }
  const __m128i bytes = _mm_loadl_epi64(
      reinterpret_cast<const __m128i*>(static_cast<const uint8_t*>(from.values) + at * 8));
  return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                       _mm256_load_ps(from.supers + (at >> from.super_shift) * 8));
}

// base - zero, or base.
inline __m256i load_addend(const PackedMatrix& w, int64_t at) {
  const __m256i base = _mm256_set1_epi32(w.base);
  if (w.affine != Affine::kZeros) return base;
  const __m128i zeros = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(w.zeros + at * 8));
  return _mm256_sub_epi32(base, _mm256_cvtepu8_epi32(zeros));
}

constexpr bool is_dense(Storage storage) {
  return storage == Storage::kF32 || storage == Storage::kF16 || storage == Storage::kBF16;
}

// Bytes of a block of quantized codes.
constexpr int64_t block_bytes(Storage storage) {
  switch (storage) {
    case Storage::kU2:
      return 64;
    case Storage::kU3:
      return 96;
    case Storage::kU5:
      return 160;
    case Storage::kU6:
      return 192;
    case Storage::kS8:
    case Storage::kE4M3:
      return 256;
    default:
      return 128;
  }
}

// The 8 rows of column `at`, counted over all tiles.
inline __m256 load_dense(Storage storage, const uint8_t* codes, int64_t at) {
  if (storage == Storage::kF32)
    return _mm256_load_ps(reinterpret_cast<const float*>(codes) + at * 8);
  const __m128i half = _mm_load_si128(reinterpret_cast<const __m128i*>(codes) + at);
  if (storage == Storage::kF16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

inline __m256i load_codes(const uint8_t* codes) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(codes));
}

// Quad `quad` of a plane, in the low kBits of each byte.
template <int kBits>
inline __m256i load_plane(const uint8_t* plane, int quad) {
  constexpr int kQuads = 8 / kBits;
  const __m256i all = load_codes(plane + quad / kQuads * 32);
  return _mm256_and_si256(_mm256_srli_epi16(all, quad % kQuads * kBits),
                          _mm256_set1_epi8((1 << kBits) - 1));
}

// Quad `quad` of a block as it is stored: unsigned codes, but for kS8 signed.
template <Storage kStorage>
inline __m256i load_quad(const uint8_t* block, int quad) {
  if constexpr (kStorage == Storage::kS8) return load_codes(block + quad * 32);
  if constexpr (kStorage == Storage::kU2) return load_plane<2>(block, quad);
  if constexpr (kStorage == Storage::kU3) {
    return _mm256_or_si256(load_plane<2>(block, quad),
                           _mm256_slli_epi16(load_plane<1>(block + 64, quad), 2));
  }
  const __m256i nibbles = load_plane<4>(block, quad);
  if constexpr (kStorage == Storage::kU5) {
    return _mm256_or_si256(nibbles, _mm256_slli_epi16(load_plane<1>(block + 128, quad), 4));
  }
  if constexpr (kStorage == Storage::kU6) {
    return _mm256_or_si256(nibbles, _mm256_slli_epi16(load_plane<2>(block + 128, quad), 4));
  }
  return nibbles;
}

// 16 floats by 8 indices.
inline __m256 look_up(const float* table, __m256i at) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), at);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), at);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(at, 28)));
}

// E4M3 codes (not NaN): as halves they are the values / 256, bit for bit.
inline __m256 e4m3_values(const uint8_t* codes) {
  const __m128i wide = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
  const __m128i sign = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x80)), 8);
  const __m128i rest = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x7f)), 7);
  return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(sign, rest)), _mm256_set1_ps(256.f));
}

// How one group turns stored codes into weights, with the roundings of dequantize().
struct Group {
  __m256 scale, offset;
  __m256i addend;
  bool has_offset;

  Group(const PackedMatrix& w, int64_t at)
      : scale(load_values(w.scales, at)),
        offset(_mm256_setzero_ps()),
        addend(load_addend(w, at)),
        has_offset(w.affine == Affine::kOffsets) {
    if (has_offset) offset = load_values(w.offsets, at);
  }

  __m256 weights(__m256i stored) const {
    const __m256 v = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_add_epi32(stored, addend)));
    return has_offset ? _mm256_add_ps(v, offset) : v;
  }
};

// The 4 columns of a quad of signed bytes, as int32.
inline void split_quad(__m256i quad, __m256i (&columns)[4]) {
  columns[0] = _mm256_srai_epi32(_mm256_slli_epi32(quad, 24), 24);
  columns[1] = _mm256_srai_epi32(_mm256_slli_epi32(quad, 16), 24);
  columns[2] = _mm256_srai_epi32(_mm256_slli_epi32(quad, 8), 24);
  columns[3] = _mm256_srai_epi32(quad, 24);
}

// The weights of columns 4 * quad to 4 * quad + 3 of a block.
template <Storage kStorage>
inline void load_weights(const PackedMatrix& w, const Group& group, const uint8_t* block, int quad,
                         __m256 (&out)[4]) {
  if constexpr (kStorage == Storage::kE4M3) {
    for (int i = 0; i < 4; ++i) {
      out[i] = _mm256_mul_ps(group.scale, e4m3_values(block + (quad * 4 + i) * 8));
    }
    return;
  }
  __m256i columns[4];
  split_quad(load_quad<kStorage>(block, quad), columns);
  for (int i = 0; i < 4; ++i) {
    if constexpr (kStorage == Storage::kTable4) {
      out[i] = _mm256_mul_ps(group.scale, look_up(w.table->values, columns[i]));
    } else {
      out[i] = group.weights(columns[i]);
    }
  }
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

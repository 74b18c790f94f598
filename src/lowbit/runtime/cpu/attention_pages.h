// Pages of a KV cache (kv_cache.h) as floats, 8 columns at a time: with AVX2, for the attention of
// every instruction set. In an anonymous namespace: see kernels.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "lowbit/runtime/cpu/attention_keys.h"
#include "lowbit/runtime/cpu/kernels.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

// 8 halves of 1/256 of what E4M3 codes stand for, bit for bit.
inline __m128i e4m3_halves(__m128i codes) {
  const __m128i wide = _mm_cvtepu8_epi16(codes);
  const __m128i sign = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x80)), 8);
  return _mm_or_si128(sign, _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x7f)), 7));
}
inline float half_at(const uint8_t* at) {
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(*reinterpret_cast<const uint16_t*>(at))));
}

// A head's keys, or values, in one block.
template <CacheType kType>
struct Page {
  static constexpr int64_t kBits = kType == CacheType::kF32   ? 32
                                   : kType == CacheType::kF16 ? 16
                                   : kType == CacheType::kI4  ? 4
                                                              : 8;
  static constexpr int64_t kGroup = 64;  // of kI4
  const uint8_t* data;
  int64_t dim;

  int64_t row_bytes() const { return (dim * kBits + 7) / 8; }
  const uint8_t* scales() const { return data + kKeys * row_bytes(); }
  // Of kI4: a scale and an offset, by which 16 + code is multiplied and to which it is added.
  const uint8_t* pair(int64_t token, int64_t i) const {
    return scales() + (i / kGroup * kKeys + token) * 4;
  }

  // Columns i to i + 7 of a token.
  __m256 load(int64_t token, int64_t i) const {
    const uint8_t* at = data + token * row_bytes() + i * kBits / 8;
    if constexpr (kType == CacheType::kF32)
      return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
    if constexpr (kType == CacheType::kF16) {
      return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    }
    if constexpr (kType == CacheType::kI4) {
      const __m256i codes =
          _mm256_srlv_epi32(_mm256_set1_epi32(*reinterpret_cast<const int32_t*>(at)),
                            _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
      const __m256 values = _mm256_cvtepi32_ps(
          _mm256_add_epi32(_mm256_and_si256(codes, _mm256_set1_epi32(15)), _mm256_set1_epi32(16)));
      const uint8_t* group = pair(token, i);
      return _mm256_fmadd_ps(values, _mm256_set1_ps(half_at(group)),
                             _mm256_set1_ps(half_at(group + 2)));
    }
    const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
    if constexpr (kType == CacheType::kE4M3) {
      return _mm256_mul_ps(_mm256_cvtph_ps(e4m3_halves(codes)),
                           _mm256_set1_ps(256 * half_at(scales() + token * 2)));
    }
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
                         _mm256_broadcast_ss(reinterpret_cast<const float*>(scales()) + token));
  }

  float element(int64_t token, int64_t i) const {
    const uint8_t* at = data + token * row_bytes() + i * kBits / 8;
    if constexpr (kType == CacheType::kF32) return *reinterpret_cast<const float*>(at);
    if constexpr (kType == CacheType::kF16) return half_at(at);
    if constexpr (kType == CacheType::kI4) {
      const uint8_t* group = pair(token, i);
      return half_at(group) * static_cast<float>(16 + (*at >> i % 2 * 4 & 15)) + half_at(group + 2);
    }
    if constexpr (kType == CacheType::kE4M3) {
      return _mm_cvtss_f32(_mm_cvtph_ps(e4m3_halves(_mm_cvtsi32_si128(*at)))) *
             (256 * half_at(scales() + token * 2));
    }
    return static_cast<float>(*reinterpret_cast<const int8_t*>(at)) *
           reinterpret_cast<const float*>(scales())[token];
  }

  // Asks for tokens [first, last) ahead of their use.
  void prefetch(Range tokens) const {
    prefetch_bytes(data + tokens.first * row_bytes(), (tokens.last - tokens.first) * row_bytes());
    if constexpr (kType == CacheType::kI8) prefetch_bytes(scales(), kKeys * 4);
    if constexpr (kType == CacheType::kE4M3) prefetch_bytes(scales(), kKeys * 2);
    if constexpr (kType == CacheType::kI4) {
      prefetch_bytes(scales(), (dim + kGroup - 1) / kGroup * kKeys * 4);
    }
  }
};

// Keys [first, last) of a block to columns of `out`, [dim][64], and their neighbours up to the next
// multiple of 8: what is there was perhaps never written, but their scores are not used.
template <CacheType kType>
void load_keys(const Page<kType>& page, Range keys, float* out) {
  for (int64_t key = keys.first / 8 * 8; key < keys.last; key += 8) {
    int64_t i = 0;
    for (; i + 8 <= page.dim; i += 8) {
      __m256 rows[8], columns[8];
      for (int j = 0; j < 8; ++j) rows[j] = page.load(key + j, i);
      transpose8(rows, columns);
      for (int j = 0; j < 8; ++j) _mm256_store_ps(out + (i + j) * kKeys + key, columns[j]);
    }
    for (; i < page.dim; ++i) {
      for (int64_t j = 0; j < 8; ++j) out[i * kKeys + key + j] = page.element(key + j, i);
    }
  }
}

// Values [first, last) of a block to rows of `out`, [64][padded], padded with zeros.
template <CacheType kType>
void load_values(const Page<kType>& page, Range keys, int64_t padded, float* out) {
  for (int64_t key = keys.first; key < keys.last; ++key) {
    float* row = out + key * padded;
    int64_t i = 0;
    for (; i + 8 <= page.dim; i += 8) _mm256_store_ps(row + i, page.load(key, i));
    for (; i < page.dim; ++i) row[i] = page.element(key, i);
    for (; i < padded; ++i) row[i] = 0;
  }
}

// Calls body(page) with a block's page at `base`, by its type.
template <typename Body>
inline void for_page(const AttentionTask& task, const uint8_t* base, int64_t block,
                     const Body& body) {
  const uint8_t* data = base + task.block_table[block] * task.block_stride;
  switch (task.type) {
    case CacheType::kF32:
      return body(Page<CacheType::kF32>{data, task.head_dim});
    case CacheType::kF16:
      return body(Page<CacheType::kF16>{data, task.head_dim});
    case CacheType::kI8:
      return body(Page<CacheType::kI8>{data, task.head_dim});
    case CacheType::kE4M3:
      return body(Page<CacheType::kE4M3>{data, task.head_dim});
    case CacheType::kI4:
      return body(Page<CacheType::kI4>{data, task.head_dim});
  }
}

}  // namespace
}  // namespace lowbit::cpu

// Activations to int8 with AVX-512: two blocks of 32 columns at a time, one in each half of the
// registers. Every operation and its order are those of kernels_avx2_int8.cpp.
#include <immintrin.h>

#include "lowbit/runtime/cpu/kernels_avx512.h"

namespace lowbit::cpu {
namespace {

// Columns [8 i, 8 i + 8) of two neighbouring blocks in register i.
struct TwoBlocks {
  __m512 v[4];
};

inline __m512 halves(__m256 low, __m256 high) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

// left: columns there are.
inline TwoBlocks load_blocks(const float* x, int64_t left) {
  TwoBlocks blocks;
  if (left >= 2 * kBlockCols) {
    for (int i = 0; i < 4; ++i) {
      blocks.v[i] = halves(_mm256_loadu_ps(x + i * 8), _mm256_loadu_ps(x + kBlockCols + i * 8));
    }
    return blocks;
  }
  const auto part = [&](int64_t first) {
    const int64_t count = left - first;
    const unsigned mask = count >= 8 ? 0xffu : count > 0 ? (1u << count) - 1 : 0u;
    return _mm256_maskz_loadu_ps(static_cast<__mmask8>(mask), x + first);
  };
  for (int i = 0; i < 4; ++i) blocks.v[i] = halves(part(i * 8), part(kBlockCols + i * 8));
  return blocks;
}

// In all lanes of each half: its largest lane, as max_lanes() of simd_avx2.h finds it.
inline __m512 max_of_halves(__m512 v) {
  v = _mm512_max_ps(_mm512_shuffle_f32x4(v, v, 0xa0), _mm512_shuffle_f32x4(v, v, 0xf5));
  v = _mm512_max_ps(_mm512_shuffle_ps(v, v, 0x44), _mm512_shuffle_ps(v, v, 0xee));
  return _mm512_max_ps(_mm512_permute_ps(v, 0x00), _mm512_permute_ps(v, 0x55));
}

// In all lanes of each half: its sum, neighbours first.
inline __m512 sum_of_halves(__m512 v) {
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xb1));
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
  return _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xb1));
}

inline __m512 rounding_error(const TwoBlocks& blocks, __m512 inverse) {
  __m512 error = _mm512_setzero_ps();
  for (const __m512 v : blocks.v) {
    const __m512 rest =
        _mm512_reduce_ps(_mm512_mul_ps(v, inverse), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    error = _mm512_fmadd_ps(rest, rest, error);
  }
  return error;
}

struct Codes {
  __m512i bytes;  // of the first block, then of the second
  __m512 scale;   // in all lanes of each half
};

inline Codes quantize_blocks(const TwoBlocks& blocks) {
  constexpr float kSteps[3] = {127.f, 125.8f, 124.6f};
  constexpr float kUnits[3] = {1.f / (127.f * 127.f), 1.f / (125.8f * 125.8f),
                               1.f / (124.6f * 124.6f)};
  __m512 max = _mm512_setzero_ps();
  for (const __m512 v : blocks.v) max = _mm512_max_ps(max, _mm512_abs_ps(v));
  const __m512 largest = max_of_halves(max);
  const __mmask16 usual = _mm512_cmp_ps_mask(largest, _mm512_set1_ps(1e-30f), _CMP_GT_OQ);
  const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.f), largest);
  __m512 best = _mm512_setzero_ps(), step = best;
  for (int i = 0; i < 3; ++i) {
    const __m512 candidate = _mm512_set1_ps(kSteps[i]);
    const __m512 error = sum_of_halves(_mm512_mul_ps(
        rounding_error(blocks, _mm512_mul_ps(candidate, inverse)), _mm512_set1_ps(kUnits[i])));
    const __mmask16 better =
        i == 0 ? __mmask16{0xffff} : _mm512_cmp_ps_mask(error, best, _CMP_LT_OS);
    step = _mm512_mask_mov_ps(step, better, candidate);
    best = _mm512_mask_mov_ps(best, better, error);
  }
  const __m512 factor = _mm512_mul_ps(step, inverse);
  __m512i q[4];
  for (int i = 0; i < 4; ++i) {
    q[i] = _mm512_maskz_cvtps_epi32(usual, _mm512_mul_ps(blocks.v[i], factor));
  }
  const __m512i packed =
      _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  // Packing interleaves 128-bit lanes; the permutation puts them back.
  const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  return {_mm512_permutexvar_epi32(order, packed),
          _mm512_mask_div_ps(_mm512_mul_ps(largest, _mm512_setzero_ps()), usual, largest, step)};
}

// Stores lanes 0, 8 (two blocks) or 0, 4, 8, 12 (their halves), `count` of them.
inline void store_lanes(void* to, __m512i v, bool split, int count) {
  const __m512i order = split ? _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
                              : _mm512_setr_epi32(0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m128i values = _mm512_castsi512_si128(_mm512_permutexvar_epi32(order, v));
  _mm_mask_storeu_epi32(to, static_cast<__mmask8>((1u << count) - 1), values);
}

}  // namespace

namespace avx512 {

void quantize_input(const float* x, int64_t cols, int64_t token, const QuantizedInput& out) {
  const bool split = out.sum_cols != kBlockCols;
  const int parts = split ? 2 : 1;
  int8_t* codes = out.codes + token * out.blocks * kBlockCols;
  const __m512i start = _mm512_set1_epi32(out.start);
  for (int64_t block = 0; block < out.blocks; block += 2) {
    const int count = out.blocks - block >= 2 ? 2 : 1;
    const Codes found =
        quantize_blocks(load_blocks(x + block * kBlockCols, cols - block * kBlockCols));
    const __mmask16 there = count == 2 ? 0xffff : 0xff;
    _mm512_mask_storeu_epi32(codes + block * kBlockCols, there, found.bytes);
    // In each 128-bit lane the sum of its codes, or of the whole block's.
    __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), found.bytes);
    sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_CDAB));
    sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
    if (!split) sums = _mm512_add_epi32(sums, _mm512_shuffle_i32x4(sums, sums, 0xb1));
    const __m512 values = _mm512_cvtepi32_ps(sums);
    const int64_t at = token * out.blocks + block, cell = at * parts;
    store_lanes(out.scales + at, _mm512_castps_si512(found.scale), false, count);
    store_lanes(out.sums + cell, _mm512_castps_si512(_mm512_mul_ps(found.scale, values)), split,
                count * parts);
    store_lanes(out.code_sums + cell, _mm512_castps_si512(values), split, count * parts);
    store_lanes(out.starts + cell, _mm512_mullo_epi32(sums, start), split, count * parts);
  }
}

}  // namespace avx512
}  // namespace lowbit::cpu

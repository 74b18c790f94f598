// Activations to int8 with AVX-512. Every operation and its order are those of
// kernels_avx2_int8.cpp, but 16 blocks of 32 columns go together: what is one number of a block, its
// largest value, errors and sums, is found for all 16 by one tree of sums across lanes, and their
// quotients by one division each.
#include <immintrin.h>

#include "lowbit/runtime/cpu/kernels_avx512.h"

namespace lowbit::cpu {
namespace {

constexpr int kRun = 16;  // blocks
constexpr int kCandidates = 3;
constexpr float kSteps[kCandidates] = {127.f, 125.8f, 124.6f};
constexpr float kUnits[kCandidates] = {1.f / (127.f * 127.f), 1.f / (125.8f * 125.8f),
                                       1.f / (124.6f * 124.6f)};

inline __mmask16 below(int64_t count) {
  return static_cast<__mmask16>(count <= 0 ? 0u : count >= 16 ? 0xffffu : (1u << count) - 1);
}

// Of up to 16 blocks.
struct Run {
  const float* x;
  int64_t cols;   // there are; zeros stand for the others
  int64_t pairs;  // of blocks
};

// Columns [16 i, 16 i + 16). kWhole: all of the run's exist.
template <bool kWhole>
inline __m512 load(const Run& run, int64_t i) {
  if constexpr (kWhole) return _mm512_loadu_ps(run.x + i * 16);
  return _mm512_maskz_loadu_ps(below(run.cols - i * 16), run.x + i * 16);
}

struct Add {
  static inline __m512 of(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
};
struct Max {
  static inline __m512 of(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
};
struct AddInts {
  static inline __m512 of(__m512 a, __m512 b) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
  }
};

// Two blocks, a register each, to one of halves: lane i is joined with lane i + 8.
template <typename Op>
inline __m512 join_halves(__m512 a, __m512 b) {
  return Op::of(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}

// Lanes are joined with their neighbours: 64-bit halves of each 128 bits hold a's, then b's.
template <typename Op>
inline __m512 join_neighbours(__m512 a, __m512 b) {
  return Op::of(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

// Four registers of two blocks in halves: in lane 4 q + j quarter q of register j, joined.
template <typename Op>
inline __m512 join_quarters(const float (*v)[16]) {
  return join_neighbours<Op>(
      join_neighbours<Op>(_mm512_load_ps(v[0]), _mm512_load_ps(v[1])),
      join_neighbours<Op>(_mm512_load_ps(v[2]), _mm512_load_ps(v[3])));
}

// Eight of them: a lane for each of 16 blocks.
template <typename Op>
inline __m512 join_blocks(const float (*v)[16]) {
  const __m512 a = join_quarters<Op>(v), b = join_quarters<Op>(v + 4);
  const __m512 joined =
      Op::of(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  return _mm512_permutexvar_ps(order, joined);
}

using Pairs = float[kRun / 2][16];  // a register for each two blocks

// Those of blocks that do not exist.
inline void clear_rest(const Run& run, Pairs& pairs) {
  for (int64_t pair = run.pairs; pair < kRun / 2; ++pair) {
    _mm512_store_ps(pairs[pair], _mm512_setzero_ps());
  }
}

template <bool kWhole>
inline __m512 largest_values(const Run& run) {
  alignas(64) Pairs parts;
  clear_rest(run, parts);
  for (int64_t pair = 0; pair < run.pairs; ++pair) {
    __m512 max[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      max[i] = _mm512_max_ps(_mm512_abs_ps(load<kWhole>(run, pair * 4 + i * 2)),
                             _mm512_abs_ps(load<kWhole>(run, pair * 4 + i * 2 + 1)));
    }
    _mm512_store_ps(parts[pair], join_halves<Max>(max[0], max[1]));
  }
  return join_blocks<Max>(parts);
}

// The square error of a block as multiples of 1 / factor, in units of that and in parts.
inline __m512 rounding_error(const __m512 (&v)[2], const float* factor) {
  __m512 rest[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    rest[i] = _mm512_reduce_ps(_mm512_mul_ps(v[i], _mm512_set1_ps(*factor)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  return _mm512_fmadd_ps(rest[1], rest[1], _mm512_mul_ps(rest[0], rest[0]));
}

// Each block's step: see quantize_block() in kernels_avx2_int8.cpp.
template <bool kWhole>
inline __m512 best_steps(const Run& run, __m512 inverse) {
  alignas(64) float factors[kCandidates][kRun];
  alignas(64) Pairs errors[kCandidates];
  for (int i = 0; i < kCandidates; ++i) {
    clear_rest(run, errors[i]);
    _mm512_store_ps(factors[i], _mm512_mul_ps(_mm512_set1_ps(kSteps[i]), inverse));
  }
  for (int64_t pair = 0; pair < run.pairs; ++pair) {
    __m512 v[2][2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[i / 2][i % 2] = load<kWhole>(run, pair * 4 + i);
#pragma GCC unroll 3
    for (int i = 0; i < kCandidates; ++i) {
      const float* factor = factors[i] + pair * 2;
      const __m512 error = join_halves<Add>(rounding_error(v[0], factor),
                                            rounding_error(v[1], factor + 1));
      _mm512_store_ps(errors[i][pair], _mm512_mul_ps(error, _mm512_set1_ps(kUnits[i])));
    }
  }
  __m512 best = join_blocks<Add>(errors[0]), step = _mm512_set1_ps(kSteps[0]);
  for (int i = 1; i < kCandidates; ++i) {
    const __m512 error = join_blocks<Add>(errors[i]);
    const __mmask16 better = _mm512_cmp_ps_mask(error, best, _CMP_LT_OS);
    step = _mm512_mask_mov_ps(step, better, _mm512_set1_ps(kSteps[i]));
    best = _mm512_mask_mov_ps(best, better, error);
  }
  return step;
}

// Codes of the run, of which there are `blocks`: of those that are not `usual` zeros. sums: of 4
template <bool kWhole>
inline void store_codes(const Run& run, int64_t blocks, __m512 factor, __mmask16 usual,
                        int8_t* codes, Pairs& sums) {
  alignas(64) float factors[kRun];
  _mm512_store_ps(factors, factor);
  clear_rest(run, sums);
  // Packing interleaves 128-bit lanes; the permutation puts them back.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (int64_t pair = 0; pair < run.pairs; ++pair) {
    __m512i q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int64_t block = pair * 2 + i / 2;
      const __mmask16 mask = static_cast<__mmask16>(-(usual >> block & 1));
      q[i] = _mm512_maskz_cvtps_epi32(
          mask,
          _mm512_mul_ps(load<kWhole>(run, pair * 4 + i), _mm512_set1_ps(factors[block])));
    }
    const __m512i packed =
        _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
    const __m512i bytes = _mm512_permutexvar_epi32(order, packed);
    _mm512_mask_storeu_epi32(codes + pair * 2 * kBlockCols, below((blocks - pair * 2) * 8), bytes);
    _mm512_store_ps(sums[pair], _mm512_castsi512_ps(_mm512_dpbusd_epi32(
                                    _mm512_setzero_si512(), _mm512_set1_epi8(1), bytes)));
  }
}

// 16 cells' sums of codes, `count` of which exist, from `cell` on.
inline void store_sums(__m512 code_sums, __m512 scale, int64_t cell, int64_t count,
                       const QuantizedInput& out) {
  const __mmask16 exist = below(count);
  const __m512i sums = _mm512_castps_si512(code_sums);
  const __m512 values = _mm512_cvtepi32_ps(sums);
  _mm512_mask_storeu_ps(out.sums + cell, exist, _mm512_mul_ps(scale, values));
  _mm512_mask_storeu_ps(out.code_sums + cell, exist, values);
  _mm512_mask_storeu_epi32(out.starts + cell, exist,
                           _mm512_mullo_epi32(sums, _mm512_set1_epi32(out.start)));
}

// at: the first of the run's `blocks` among all tokens'
template <bool kWhole>
void quantize_run(const Run& run, int64_t at, int64_t blocks, const QuantizedInput& out) {
  const __m512 largest = largest_values<kWhole>(run);
  const __mmask16 usual = _mm512_cmp_ps_mask(largest, _mm512_set1_ps(1e-30f), _CMP_GT_OQ);
  const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.f), largest);
  const __m512 step = best_steps<kWhole>(run, inverse);
  alignas(64) Pairs sums;
  store_codes<kWhole>(run, blocks, _mm512_mul_ps(step, inverse), usual,
                      out.codes + at * kBlockCols, sums);
  const __m512 scale =
      _mm512_mask_div_ps(_mm512_mul_ps(largest, _mm512_setzero_ps()), usual, largest, step);
  _mm512_mask_storeu_ps(out.scales + at, below(blocks), scale);
  if (out.sum_cols == kBlockCols) {
    store_sums(join_blocks<AddInts>(sums), scale, at, blocks, out);
    return;
  }
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  for (int half = 0; half < 2; ++half) {
    const __m512 halves = _mm512_permutexvar_ps(order, join_quarters<AddInts>(sums + half * 4));
    const __m512i of = _mm512_add_epi32(twice, _mm512_set1_epi32(half * 8));
    store_sums(halves, _mm512_permutexvar_ps(of, scale), at * 2 + half * 16,
               blocks * 2 - half * 16, out);
  }
}

}  // namespace

namespace avx512 {

void quantize_input(const float* x, int64_t cols, int64_t token, const QuantizedInput& out) {
  for (int64_t block = 0; block < out.blocks; block += kRun) {
    const int64_t blocks = out.blocks - block < kRun ? out.blocks - block : kRun;
    const Run run{x + block * kBlockCols, cols - block * kBlockCols, (blocks + 1) / 2};
    const int64_t at = token * out.blocks + block;
    if (run.cols >= kRun * kBlockCols) {
      quantize_run<true>(run, at, blocks, out);
    } else {
      quantize_run<false>(run, at, blocks, out);
    }
  }
}

}  // namespace avx512
}  // namespace lowbit::cpu

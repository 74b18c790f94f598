// Attention with AMX and AVX-512: attention_amx.h.
#include <immintrin.h>

#include "lowbit/runtime/cpu/amx_tiles.h"
#include "lowbit/runtime/cpu/attention_amx.h"
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/lanes16.h"
#include "lowbit/runtime/cpu/transpose16.h"

namespace lowbit::cpu {
namespace {

struct AmxLanes : Lanes16 {
  using Int = __m512i;
  using Lanes16::load_floats;
  using Lanes16::store_floats;

  static inline __mmask16 mask(int64_t count) { return static_cast<__mmask16>(below(count)); }
  static inline Float load_floats(const float* at, int64_t count) {
    return _mm512_maskz_loadu_ps(mask(count), at);
  }
  static inline void store_floats(float* at, Float v, int64_t count) {
    _mm512_mask_storeu_ps(at, mask(count), v);
  }
  static inline Float load_halves(const uint16_t* at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  }
  static inline Float load_halves(const uint16_t* at, int64_t count) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(count), at));
  }
  static inline Int load_ints(const int32_t* at) { return _mm512_load_si512(at); }
  static inline void store_ints(float* at, Int v) { _mm512_store_si512(at, v); }
  static inline Int as_ints(Float v) { return _mm512_castps_si512(v); }
  static inline Float as_floats(Int v) { return _mm512_castsi512_ps(v); }
  static inline Float divide(Float a, Float b) { return _mm512_div_ps(a, b); }
  static inline void transpose(Int (&rows)[16]) { transpose16(rows); }
  static inline void store_tile(float* to, const Int (&rows)[16]) {
    for (int i = 0; i < 16; ++i) _mm512_store_si512(to + i * 16, rows[i]);
  }

  // v where first <= key < last, else hidden.
  static inline Float between(Int first, Int last, int key, Float v, Float hidden) {
    const Int at = _mm512_set1_epi32(key);
    const __mmask16 seen =
        _mm512_mask_cmplt_epi32_mask(_mm512_cmple_epi32_mask(first, at), at, last);
    return _mm512_mask_mov_ps(hidden, seen, v);
  }
  // 0 for -infinity.
  static inline Float finite_or_zero(Float v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, floats(-__builtin_inff()), _CMP_NEQ_UQ), v);
  }
  static inline bool all_one(Float v) {
    return _mm512_cmp_ps_mask(v, floats(1.f), _CMP_EQ_OQ) == 0xffff;
  }

  static inline Int up(Float v) {  // the upper halves are v rounded to bf16
    return _mm512_add_epi32(as_ints(v), _mm512_set1_epi32(0x8000));
  }
  static inline Int high_half(Int v) {
    return _mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
  }
  static inline Float rest(Float v) { return subtract(v, as_floats(high_half(up(v)))); }
  static inline Int pairs(Int even, Int odd) {
    return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(even, 16), odd);
  }
  // bf16 parts of `even` in the lower halves, of `odd` in the upper.
  static inline void split_pairs(Float even, Float odd, Int& high, Int& low) {
    high = pairs(up(even), up(odd));
    low = pairs(up(rest(even)), up(rest(odd)));
  }
  // bf16 parts of 32 neighbours.
  static inline void split_row(Float first, Float last, Int& high, Int& low) {
    high = uppers(up(first), up(last));
    low = uppers(up(rest(first)), up(rest(last)));
  }
  // The upper halves of 32 ints.
  static inline Int uppers(Int first, Int last) {
    Int at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    at = _mm512_add_epi32(_mm512_mullo_epi32(at, _mm512_set1_epi32(0x00040004)),
                          _mm512_set1_epi32(0x00030001));
    return _mm512_permutex2var_epi16(first, at, last);
  }
};

// Tiles are numbered as in attention_amx.h.
struct Bf16Tiles {
  static inline void configure() {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = 64;
      config.rows[tile] = 16;
    }
    load_tile_config(config);
  }
  static inline void release() { _tile_release(); }
  // g++ does not see that tiles are loaded from memory and stored to it.
  static inline void fence() { __asm__ volatile("" : : : "memory"); }

  // The intrinsics of g++ 12 take literal numbers only.
  template <int T>
  static inline void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
  }
  template <int T>
  static inline void load(const float* from) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(int64_t{64}), "i"(T));
  }
  template <int T>
  static inline void store(float* to) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(int64_t{64}), "i"(T));
  }
  template <int C, int A, int B>
  static inline void dot() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};

}  // namespace

namespace amx {

// Who asks for keys and values in fp32 wants more than two bf16; those of few bits have scales,
// which tiles do not.
void attention(const AttentionTask& task) {
  if (task.type != CacheType::kF16) return avx512::attention(task);
  attend_with_tiles<AmxLanes, Bf16Tiles>(task);
}

int64_t attention_scratch(int64_t queries, int64_t heads, int64_t head_dim) {
  const int64_t rows = queries * heads;
  return larger(AmxScratch::size(rows, head_dim), Scratch::size(rows, head_dim));
}

}  // namespace amx
}  // namespace lowbit::cpu

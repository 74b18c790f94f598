// y = x * W^T for quantized weights and int8 activations.
//
//   y[t][n] = sum over groups g of  scale_w[n][g] * scale_x[t][g] * sum over k of q_w * q_x
//                                 + shift_w[n][g] * scale_x[t][g] * sum over k of q_x
//
// The inner sums are exact in int32 (see the bounds at each dot()); the outer one is fp32, group
// after group. One register holds 8 rows' sums; a call of tile() does 8 rows x up to 4 tokens, so
// codes are unpacked in registers once for 4 tokens.
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/quantized_avx2.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

constexpr int kTokens = 4;

// Four activations of one token, for all 8 rows.
inline __m256i broadcast_quad(const int8_t* x) {
  int32_t quad;
  __builtin_memcpy(&quad, x, 4);
  return _mm256_set1_epi32(quad);
}

inline __m256i load_codes(const uint8_t* codes) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(codes));
}

inline __m256i low_nibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
inline __m256i high_nibbles(__m256i v) { return low_nibbles(_mm256_srli_epi16(v, 4)); }

// Makes the compiler finish this sum here. Left alone, g++ reorders integer sums into a tree whose
// leaves it spills.
inline void settle(__m256i& sum) { __asm__("" : "+x"(sum)); }

// Each type's dot<T, Q>() leaves in sums[t] the dot products of Q quads of codes with token t.

// Codes 0..15 times -127..127: a pair is at most 3810, so 8 quads fit int16.
struct U4 {
  static constexpr int kQuadBytes = 16;
  template <int T, int Q>
  static inline void dot(const uint8_t* codes, const int8_t* x, int64_t stride,
                         __m256i (&sums)[T]) {
    __m256i pairs[T];
    for (int t = 0; t < T; ++t) pairs[t] = _mm256_setzero_si256();
    for (int quad = 0; quad < Q; quad += 2) {
      const __m256i v = load_codes(codes + quad * kQuadBytes);
      const __m256i low = low_nibbles(v), high = high_nibbles(v);
      for (int t = 0; t < T; ++t) {
        const int8_t* at = x + t * stride + quad * 4;
        const __m256i a = _mm256_maddubs_epi16(low, broadcast_quad(at));
        const __m256i b = _mm256_maddubs_epi16(high, broadcast_quad(at + 4));
        pairs[t] = _mm256_add_epi16(pairs[t], _mm256_add_epi16(a, b));
        settle(pairs[t]);
      }
    }
    const __m256i ones = _mm256_set1_epi16(1);
    for (int t = 0; t < T; ++t) sums[t] = _mm256_madd_epi16(pairs[t], ones);
  }
};

// Signed times signed as |w| * (x with w's sign). -128 has no int8 magnitude, but 128 as uint8.
inline __m256i signed_pairs(__m256i magnitude, __m256i w, __m256i x) {
  return _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w));
}

// Codes -128..127 times -127..127: a pair is at most 32512, so each is widened at once.
struct S8 {
  static constexpr int kQuadBytes = 32;
  template <int T, int Q>
  static inline void dot(const uint8_t* codes, const int8_t* x, int64_t stride,
                         __m256i (&sums)[T]) {
    const __m256i ones = _mm256_set1_epi16(1);
    for (int t = 0; t < T; ++t) sums[t] = _mm256_setzero_si256();
    for (int quad = 0; quad < Q; ++quad) {
      const __m256i w = load_codes(codes + quad * kQuadBytes), magnitude = _mm256_abs_epi8(w);
      for (int t = 0; t < T; ++t) {
        const __m256i pairs = signed_pairs(magnitude, w, broadcast_quad(x + t * stride + quad * 4));
        sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(pairs, ones));
        settle(sums[t]);
      }
    }
  }
};

// Codes -32..32 (6 bits): a pair is at most 8128, so 4 quads fit int16.
struct S6 {
  static constexpr int kQuadBytes = 32;
  template <int T, int Q>
  static inline void dot(const uint8_t* codes, const int8_t* x, int64_t stride,
                         __m256i (&sums)[T]) {
    const __m256i ones = _mm256_set1_epi16(1);
    for (int t = 0; t < T; ++t) sums[t] = _mm256_setzero_si256();
    for (int quad = 0; quad < Q; quad += 4) {
      __m256i pairs[T];
      for (int i = 0; i < 4; ++i) {
        const __m256i w = load_codes(codes + (quad + i) * kQuadBytes);
        const __m256i magnitude = _mm256_abs_epi8(w);
        for (int t = 0; t < T; ++t) {
          const int8_t* at = x + t * stride + (quad + i) * 4;
          const __m256i pair = signed_pairs(magnitude, w, broadcast_quad(at));
          pairs[t] = i == 0 ? pair : _mm256_add_epi16(pairs[t], pair);
          settle(pairs[t]);
        }
      }
      for (int t = 0; t < T; ++t) {
        sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(pairs[t], ones));
      }
    }
  }
};

// Table values -127..113 times -127..127, as S8.
struct Iq4 {
  static constexpr int kQuadBytes = 16;
  template <int T, int Q>
  static inline void dot(const uint8_t* codes, const int8_t* x, int64_t stride,
                         __m256i (&sums)[T]) {
    const __m256i ones = _mm256_set1_epi16(1), table = iq4_table();
    for (int t = 0; t < T; ++t) sums[t] = _mm256_setzero_si256();
    for (int quad = 0; quad < Q; quad += 2) {
      const __m256i v = load_codes(codes + quad * kQuadBytes);
      const __m256i w[2] = {_mm256_shuffle_epi8(table, low_nibbles(v)),
                            _mm256_shuffle_epi8(table, high_nibbles(v))};
      for (int i = 0; i < 2; ++i) {
        const __m256i magnitude = _mm256_abs_epi8(w[i]);
        for (int t = 0; t < T; ++t) {
          const int8_t* at = x + t * stride + (quad + i) * 4;
          const __m256i pairs = signed_pairs(magnitude, w[i], broadcast_quad(at));
          sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(pairs, ones));
          settle(sums[t]);
        settle(sums[t]);
        }
      }
    }
  }
};

inline void store_rows(const PackedMatrix& w, int64_t tile, __m256 sum, float* y) {
  if (w.bias != nullptr) sum = _mm256_add_ps(sum, _mm256_load_ps(w.bias + tile * 8));
  const int64_t rows = w.rows - tile * 8;
  if (rows >= 8) {
    _mm256_storeu_ps(y + tile * 8, sum);
  } else {
    _mm256_maskstore_ps(y + tile * 8, lane_mask(rows), sum);
  }
}

// shift_w of the formula above.
inline __m256 load_shift(const PackedMatrix& w, __m256 scale, int64_t at) {
  const __m256 shift = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(load_addend(w, at)));
  if (w.affine != Affine::kOffsets) return shift;
  return _mm256_add_ps(shift, load_rows(w.shifts, w.half_scales, at));
}

// 8 rows x T tokens. kParts: groups within a block (2 if split).
template <typename Codes, bool kShift, int kParts, int T>
void tile_product(const PackedMatrix& w, const QuantizedInput& x, int64_t tile, int64_t token,
                  float* y, int64_t y_stride) {
  constexpr int kQuads = 8 / kParts;
  const int64_t stride = x.blocks * kBlockCols;
  const uint8_t* codes = w.codes + tile * w.blocks * 8 * Codes::kQuadBytes;
  const int8_t* input = x.codes + token * stride;
  const float* scales = x.scales + token * x.blocks;
  const float* sums = x.sums + token * x.blocks * kParts;
  int64_t at = tile * w.groups, next = w.group_blocks;
  __m256 y_sums[T];
  for (int t = 0; t < T; ++t) y_sums[t] = _mm256_setzero_ps();
  for (int64_t block = 0; block < w.blocks; ++block) {
    for (int part = 0; part < kParts; ++part) {
      __m256i products[T];
      Codes::template dot<T, kQuads>(codes, input, stride, products);
      const __m256 scale = load_rows(w.scales, w.half_scales, at);
      for (int t = 0; t < T; ++t) {
        const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(products[t]),
                                             _mm256_broadcast_ss(scales + t * x.blocks + block));
        y_sums[t] = _mm256_fmadd_ps(product, scale, y_sums[t]);
      }
      if constexpr (kShift) {
        const __m256 shift = load_shift(w, scale, at);
        for (int t = 0; t < T; ++t) {
          const float* sum = sums + (t * x.blocks + block) * kParts + part;
          y_sums[t] = _mm256_fmadd_ps(shift, _mm256_broadcast_ss(sum), y_sums[t]);
        }
      }
      codes += kQuads * Codes::kQuadBytes;
      input += kQuads * 4;
      if (kParts == 2) ++at;
    }
    if (kParts == 1 && block + 1 == next) {
      ++at;
      next += w.group_blocks;
    }
  }
  for (int t = 0; t < T; ++t) store_rows(w, tile, y_sums[t], y + (token + t) * y_stride);
}

template <typename Codes, bool kShift, int kParts>
void product(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens, float* y,
             int64_t y_stride) {
  for (int64_t tile = tiles.first; tile < tiles.last; ++tile) {
    int64_t token = tokens.first;
    for (; token + kTokens <= tokens.last; token += kTokens) {
      tile_product<Codes, kShift, kParts, kTokens>(w, x, tile, token, y, y_stride);
    }
    for (; token < tokens.last; ++token) {
      tile_product<Codes, kShift, kParts, 1>(w, x, tile, token, y, y_stride);
    }
  }
}

template <typename Codes>
void product_of(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens, float* y,
                int64_t y_stride) {
  const bool shift = w.affine != Affine::kNone || w.base != 0;
  const auto run = w.split_blocks ? (shift ? product<Codes, true, 2> : product<Codes, false, 2>)
                                  : (shift ? product<Codes, true, 1> : product<Codes, false, 1>);
  run(w, x, tiles, tokens, y, y_stride);
}

}  // namespace

namespace avx2 {

void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  switch (w.storage) {
    case Storage::kU4:
      return product_of<U4>(w, x, tiles, tokens, y, y_stride);
    case Storage::kIq4:
      return product_of<Iq4>(w, x, tiles, tokens, y, y_stride);
    case Storage::kS8:
      if (w.magnitude <= 32) return product_of<S6>(w, x, tiles, tokens, y, y_stride);
      return product_of<S8>(w, x, tiles, tokens, y, y_stride);
    case Storage::kF32:
    case Storage::kF16:
    case Storage::kBF16:
      __builtin_trap();  // dense weights have no int8 kernel; the caller knows
  }
}

void quantize_input(const float* x, int64_t cols, int64_t token, const QuantizedInput& out) {
  const int64_t parts = kBlockCols / out.sum_cols;
  int8_t* codes = out.codes + token * out.blocks * kBlockCols;
  for (int64_t block = 0; block < out.blocks; ++block) {
    __m256 v[4];
    __m256 max = _mm256_setzero_ps();
    for (int i = 0; i < 4; ++i) {
      const int64_t left = cols - block * kBlockCols - i * 8;
      const float* at = x + block * kBlockCols + i * 8;
      v[i] = left >= 8  ? _mm256_loadu_ps(at)
             : left > 0 ? _mm256_maskload_ps(at, lane_mask(left))
                        : _mm256_setzero_ps();
      max = _mm256_max_ps(max, _mm256_andnot_ps(_mm256_set1_ps(-0.f), v[i]));
    }
    const float largest = max_lanes(max);
    // A subnormal largest would make the inverse infinite.
    const __m256 inverse = _mm256_set1_ps(largest > 1e-30f ? 127.f / largest : 0.f);
    const float scale = largest / 127.f;
    __m256i q[4];
    for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    const __m256i halves[2] = {_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])};
    float sums[2];
    for (int i = 0; i < 2; ++i) sums[i] = sum_lanes(_mm256_cvtepi32_ps(halves[i]));
    float* to = out.sums + (token * out.blocks + block) * parts;
    if (parts == 2) {
      to[0] = scale * sums[0];
      to[1] = scale * sums[1];
    } else {
      to[0] = scale * (sums[0] + sums[1]);
    }
    out.scales[token * out.blocks + block] = scale;
    // Packing interleaves 128-bit halves; the permutation puts them back.
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    _mm256_store_si256(
        reinterpret_cast<__m256i*>(codes + block * kBlockCols),
        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }
}

}  // namespace avx2
}  // namespace lowbit::cpu

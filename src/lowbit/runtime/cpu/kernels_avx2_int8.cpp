// y = x * W^T for quantized weights and int8 activations.
//
//   y[t][n] = sum over groups g of  scale_w[n][g] * scale_x[t][g] * sum over k of (q_w + a) * q_x
//                                 + offset_w[n][g] * scale_x[t][g] * sum over k of q_x
//
// with a = base - zero_w[n][g]. The inner sums are exact, in int32 (see the bounds at each type of
// codes) and then in fp32, so it does not matter how a is brought in; the outer one is fp32, group
// after group. One register holds 8 rows' sums. A call of tiles_product() does R x 8 rows x T
// tokens, so codes are unpacked once for T tokens and activations broadcast once for R tiles.
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/packed_avx2.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

constexpr int kTokens = 4;

// Codes that come from memory are asked for this many bytes ahead, about what memory delivers in
// its latency. Past the end it is the next chunk, or a harmless address.
constexpr int kPrefetchBytes = 4096;

// Four activations of one token, for all 8 rows.
inline __m256i broadcast_quad(const int8_t* x) {
  int32_t quad;
  __builtin_memcpy(&quad, x, 4);
  return _mm256_set1_epi32(quad);
}

// Makes the compiler finish this sum here. Left alone, g++ reorders integer sums into a tree whose
// leaves it spills.
inline void settle(__m256i& sum) { __asm__("" : "+x"(sum)); }

// Types of codes. kSigned: multiplied as |w| * (x with w's sign), else as unsigned bytes.
// kInt16Quads: so many quads' products fit int16 (activations are -127..127).

template <Storage kStored, int kMost>
struct UnsignedCodes {
  static constexpr Storage kStorage = kStored;
  static constexpr bool kSigned = false;
  // A quad adds 2 * kMost * 127 to an int16 at most.
  static constexpr int kFit = 32767 / (2 * kMost * 127);
  static constexpr int kInt16Quads = kFit >= 8 ? 8 : kFit >= 4 ? 4 : 2;
  static inline __m256i load(const PackedMatrix&, const uint8_t* block, int quad) {
    return load_quad<kStored>(block, quad);
  }
};
using U2 = UnsignedCodes<Storage::kU2, 3>;
using U3 = UnsignedCodes<Storage::kU3, 7>;
using U4 = UnsignedCodes<Storage::kU4, 15>;
using U5 = UnsignedCodes<Storage::kU5, 31>;
using U6 = UnsignedCodes<Storage::kU6, 63>;

// -128..127; the magnitude of -128 is no int8, but 128 as uint8. A quad adds 32512 at most.
struct S8 {
  static constexpr Storage kStorage = Storage::kS8;
  static constexpr bool kSigned = true;
  static constexpr int kInt16Quads = 1;
  static inline __m256i load(const PackedMatrix&, const uint8_t* block, int quad) {
    return load_quad<Storage::kS8>(block, quad);
  }
};

struct Table4 {
  static constexpr Storage kStorage = Storage::kTable4;
  static constexpr bool kSigned = true;
  static constexpr int kInt16Quads = 1;
  static inline __m256i load(const PackedMatrix& w, const uint8_t* block, int quad) {
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i*>(w.table->steps)));
    return _mm256_shuffle_epi8(table, load_quad<Storage::kTable4>(block, quad));
  }
};

// sums[r][t] = dot products of quads [first, first + Q) of tile r's block with token t.
template <typename Codes, int Q, int R, int T>
inline void dot(const PackedMatrix& w, const uint8_t* block, int64_t tile_bytes, int first,
                const int8_t* x, int64_t stride, __m256i (&sums)[R][T]) {
  constexpr int kRun = Codes::kInt16Quads < Q ? Codes::kInt16Quads : Q;
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
  for (int run = 0; run < Q; run += kRun) {
    __m256i pairs[R][T];
#pragma GCC unroll 8
    for (int quad = run; quad < run + kRun; ++quad) {
      __m256i codes[R], magnitudes[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        codes[r] = Codes::load(w, block + r * tile_bytes, first + quad);
        magnitudes[r] = Codes::kSigned ? _mm256_abs_epi8(codes[r]) : codes[r];
      }
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const __m256i input = broadcast_quad(x + t * stride + quad * 4);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          const __m256i signs = Codes::kSigned ? _mm256_sign_epi8(input, codes[r]) : input;
          const __m256i pair = _mm256_maddubs_epi16(magnitudes[r], signs);
          pairs[r][t] = quad == run ? pair : _mm256_add_epi16(pairs[r][t], pair);
          settle(pairs[r][t]);
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R * T; ++i) {
      const __m256i wide = _mm256_madd_epi16(pairs[i / T][i % T], ones);
      __m256i& sum = sums[i / T][i % T];
      sum = run == 0 ? wide : _mm256_add_epi32(sum, wide);
      if (run > 0) settle(sum);
    }
  }
}

// What a matrix has beside codes and scales. kAddend: a of the formula is not 0.
template <bool kHasAddend, bool kHasOffset>
struct Terms {
  static constexpr bool kAddend = kHasAddend, kOffset = kHasOffset;
};

// One group of 8 rows.
template <typename Codes, typename T>
struct GroupTerms {
  __m256 scale, addend, offset;

  static inline GroupTerms load(const PackedMatrix& w, int64_t at) {
    GroupTerms group;
    group.scale = load_values(w.scales, at);
    if constexpr (Codes::kStorage == Storage::kTable4) {
      group.scale = _mm256_mul_ps(group.scale, _mm256_set1_ps(w.table->unit));
    }
    if constexpr (T::kAddend) group.addend = _mm256_cvtepi32_ps(load_addend(w, at));
    if constexpr (T::kOffset) group.offset = load_values(w.offsets, at);
    return group;
  }
  // y + this group's share. sums: of the codes, with and without scale
  inline __m256 add(__m256 y, __m256i products, const float* x_scale, const float* x_code_sum,
                    const float* x_sum) const {
    __m256 product = _mm256_cvtepi32_ps(products);
    if constexpr (T::kAddend) {
      product = _mm256_fmadd_ps(addend, _mm256_broadcast_ss(x_code_sum), product);
    }
    y = _mm256_fmadd_ps(_mm256_mul_ps(product, _mm256_broadcast_ss(x_scale)), scale, y);
    if constexpr (T::kOffset) y = _mm256_fmadd_ps(offset, _mm256_broadcast_ss(x_sum), y);
    return y;
  }
};

inline void prefetch(const uint8_t* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(at) + i, _MM_HINT_T0);
  }
}

// R tiles from `tile` on x T tokens from `token` on. kParts: groups within a block (2 if split).
// first: the tiles are read for the first time, from memory.
template <typename Codes, typename Terms, int kParts, int R, int T>
void tiles_product(const PackedMatrix& w, const QuantizedInput& x, int64_t tile, int64_t token,
                   bool first, float* y, int64_t y_stride) {
  constexpr int kQuads = 8 / kParts;
  constexpr int64_t kBytes = block_bytes(Codes::kStorage);
  const int64_t stride = x.blocks * kBlockCols, tile_bytes = w.blocks * kBytes;
  const uint8_t* codes = w.codes + tile * tile_bytes;
  const int8_t* input = x.codes + token * stride;
  const float* scales = x.scales + token * x.blocks;
  const int64_t cells = x.blocks * kParts;  // of a token
  const float* sums = x.sums + token * cells;
  const float* code_sums = x.code_sums + token * cells;
  int64_t at = tile * w.groups, next = w.group_blocks;
  __m256 y_sums[R][T];
  for (int i = 0; i < R * T; ++i) y_sums[i / T][i % T] = _mm256_setzero_ps();
  for (int64_t block = 0; block < w.blocks; ++block) {
    if (first) {
      for (int r = 0; r < R; ++r) prefetch(codes + r * tile_bytes + kPrefetchBytes, kBytes);
    }
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      __m256i products[R][T];
      dot<Codes, kQuads>(w, codes, tile_bytes, part * kQuads, input, stride, products);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const auto group = GroupTerms<Codes, Terms>::load(w, at + r * w.groups);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
          const int64_t cell = t * cells + block * kParts + part;
          y_sums[r][t] = group.add(y_sums[r][t], products[r][t], scales + t * x.blocks + block,
                                   code_sums + cell, sums + cell);
        }
      }
      input += kQuads * 4;
      if (kParts == 2) ++at;
    }
    codes += kBytes;
    if (kParts == 1 && block + 1 == next) {
      ++at;
      next += w.group_blocks;
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < T; ++t) {
      store_rows(w, tile + r, y_sums[r][t], y + (token + t) * y_stride);
    }
  }
}

// Two tiles' blocks, unpacked once for many tokens: a quarter faster than unpacking for each four.
// Bytes are there already.
template <typename Codes, int kParts>
constexpr bool kHasPanel = kParts == 1 && Codes::kStorage != Storage::kS8;
constexpr int kPanelTokens = 8;  // from so many tokens on that pays
constexpr int kPanelBlocks = 32;
constexpr int kMostTokens = 96;  // that share a panel

struct Panel {
  alignas(64) uint8_t codes[kPanelBlocks][8][2][32];  // magnitudes, where they are signed
  alignas(64) uint8_t signs[kPanelBlocks][8][2][32];  // only there
  alignas(64) float scales[kPanelBlocks][2][8];
  alignas(64) float addends[kPanelBlocks][2][8];
  alignas(64) float offsets[kPanelBlocks][2][8];
  alignas(64) float sums[kMostTokens][2][8];  // of the blocks before these
};

template <typename Codes, typename Terms>
inline void unpack(const PackedMatrix& w, int64_t tile, int64_t first, int64_t count,
                   Panel& panel) {
  constexpr int64_t kBytes = block_bytes(Codes::kStorage);
  for (int r = 0; r < 2; ++r) {
    const uint8_t* codes = w.codes + ((tile + r) * w.blocks + first) * kBytes;
    const int64_t groups = (tile + r) * w.groups;
    int64_t group = first / w.group_blocks, next = (group + 1) * w.group_blocks;
    for (int64_t i = 0; i < count; ++i, codes += kBytes) {
      prefetch(codes + kPrefetchBytes, kBytes);
#pragma GCC unroll 8
      for (int quad = 0; quad < 8; ++quad) {
        const __m256i code = Codes::load(w, codes, quad);
        auto* to = reinterpret_cast<__m256i*>(panel.codes[i][quad][r]);
        _mm256_store_si256(to, Codes::kSigned ? _mm256_abs_epi8(code) : code);
        if (Codes::kSigned) {
          _mm256_store_si256(reinterpret_cast<__m256i*>(panel.signs[i][quad][r]), code);
        }
      }
      const auto terms = GroupTerms<Codes, Terms>::load(w, groups + group);
      _mm256_store_ps(panel.scales[i][r], terms.scale);
      if constexpr (Terms::kAddend) _mm256_store_ps(panel.addends[i][r], terms.addend);
      if constexpr (Terms::kOffset) _mm256_store_ps(panel.offsets[i][r], terms.offset);
      if (first + i + 1 == next) {
        ++group;
        next += w.group_blocks;
      }
    }
  }
}

// products[r][t] of one block of the panel, as dot() has them.
template <typename Codes, int T>
inline void panel_dot(const Panel& panel, int64_t block, const int8_t* x, int64_t stride,
                      __m256i (&products)[2][T]) {
  constexpr int kRun = Codes::kInt16Quads;
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
  for (int run = 0; run < 8; run += kRun) {
    __m256i pairs[2][T];
#pragma GCC unroll 8
    for (int quad = run; quad < run + kRun; ++quad) {
      const __m256i codes[2] = {load_codes(panel.codes[block][quad][0]),
                                load_codes(panel.codes[block][quad][1])};
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const __m256i input = broadcast_quad(x + t * stride + quad * 4);
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) {
          const __m256i signs =
              Codes::kSigned ? _mm256_sign_epi8(input, load_codes(panel.signs[block][quad][r]))
                             : input;
          const __m256i pair = _mm256_maddubs_epi16(codes[r], signs);
          pairs[r][t] = quad == run ? pair : _mm256_add_epi16(pairs[r][t], pair);
          settle(pairs[r][t]);
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * T; ++i) {
      const __m256i wide = _mm256_madd_epi16(pairs[i / T][i % T], ones);
      __m256i& sum = products[i / T][i % T];
      sum = run == 0 ? wide : _mm256_add_epi32(sum, wide);
      if (run > 0) settle(sum);
    }
  }
}

// Adds the products of `count` blocks from `first` on to the sums of T tokens from `token` on; the
// panel's first token is `start`.
template <typename Codes, typename Terms, int T>
inline void panel_tokens(Panel& panel, const QuantizedInput& x, int64_t first, int64_t count,
                         int64_t start, int64_t token) {
  const int64_t blocks = x.blocks, stride = blocks * kBlockCols;
  const int64_t at = (start + token) * blocks + first;
  const int8_t* codes = x.codes + at * kBlockCols;
  const float *scales = x.scales + at, *sums = x.sums + at, *code_sums = x.code_sums + at;
  __m256 y[2][T];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * T; ++i)
    y[i / T][i % T] = _mm256_load_ps(panel.sums[token + i % T][i / T]);
  for (int64_t block = 0; block < count; ++block) {
    __m256i products[2][T];
    panel_dot<Codes, T>(panel, block, codes, stride, products);
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r) {
      GroupTerms<Codes, Terms> group;
      group.scale = _mm256_load_ps(panel.scales[block][r]);
      if constexpr (Terms::kAddend) group.addend = _mm256_load_ps(panel.addends[block][r]);
      if constexpr (Terms::kOffset) group.offset = _mm256_load_ps(panel.offsets[block][r]);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        y[r][t] = group.add(y[r][t], products[r][t], scales + t * blocks, code_sums + t * blocks,
                            sums + t * blocks);
      }
    }
    codes += kBlockCols;
    ++scales;
    ++sums;
    ++code_sums;
  }
#pragma GCC unroll 8
  for (int i = 0; i < 2 * T; ++i)
    _mm256_store_ps(panel.sums[token + i % T][i / T], y[i / T][i % T]);
}

// Two tiles from `tile` on, for most of the tokens; returns the first that is left. The sums are
// those of tiles_product(), in its order.
template <typename Codes, typename Terms>
int64_t panel_product(const PackedMatrix& w, const QuantizedInput& x, int64_t tile, Range tokens,
                      float* y, int64_t y_stride) {
  Panel panel;
  int64_t first = tokens.first;
  while (tokens.last - first >= kPanelTokens) {
    const int64_t many = (tokens.last - first) / kTokens * kTokens;
    const int64_t count = many < kMostTokens ? many : kMostTokens;
    __builtin_memset(panel.sums, 0, static_cast<size_t>(count) * sizeof panel.sums[0]);
    for (int64_t block = 0; block < w.blocks; block += kPanelBlocks) {
      const int64_t left = w.blocks - block;
      const int64_t some = left < kPanelBlocks ? left : kPanelBlocks;
      unpack<Codes, Terms>(w, tile, block, some, panel);
      for (int64_t t = 0; t < count; t += kTokens) {
        panel_tokens<Codes, Terms, kTokens>(panel, x, block, some, first, t);
      }
    }
    for (int64_t t = 0; t < count; ++t) {
      for (int r = 0; r < 2; ++r) {
        store_rows(w, tile + r, _mm256_load_ps(panel.sums[t][r]), y + (first + t) * y_stride);
      }
    }
    first += count;
  }
  return first;
}

// Tokens that are left over by fours run tile after tile: one stream from memory is faster than
// two.
template <typename Codes, typename Terms, int kParts, int R>
void row_product(const PackedMatrix& w, const QuantizedInput& x, int64_t tile, Range tokens,
                 float* y, int64_t y_stride) {
  int64_t token = tokens.first;
  if constexpr (R == 2 && kHasPanel<Codes, kParts>) {
    token = panel_product<Codes, Terms>(w, x, tile, tokens, y, y_stride);
  }
  for (; token + kTokens <= tokens.last; token += kTokens) {
    tiles_product<Codes, Terms, kParts, R, kTokens>(w, x, tile, token, token == tokens.first, y,
                                                    y_stride);
  }
  for (int r = 0; r < R; ++r) {
    for (int64_t rest = token; rest < tokens.last; ++rest) {
      tiles_product<Codes, Terms, kParts, 1, 1>(w, x, tile + r, rest, rest == tokens.first, y,
                                                y_stride);
    }
  }
}

template <typename Codes, typename Terms, int kParts>
void product(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens, float* y,
             int64_t y_stride) {
  int64_t tile = tiles.first;
  for (; tile + 2 <= tiles.last; tile += 2) {
    row_product<Codes, Terms, kParts, 2>(w, x, tile, tokens, y, y_stride);
  }
  if (tile < tiles.last) {
    row_product<Codes, Terms, kParts, 1>(w, x, tile, tokens, y, y_stride);
  }
}

using Product = void (*)(const PackedMatrix&, const QuantizedInput&, Range, Range, float*, int64_t);

template <typename Codes, bool kAddend, bool kOffset>
Product product_of(const PackedMatrix& w) {
  using T = Terms<kAddend, kOffset>;
  return w.split_blocks ? product<Codes, T, 2> : product<Codes, T, 1>;
}

// Unsigned codes have an addend, as their middle is not 0, or else an offset.
template <typename Codes>
Product unsigned_product(const PackedMatrix& w) {
  return w.affine == Affine::kOffsets ? product_of<Codes, false, true>(w)
                                      : product_of<Codes, true, false>(w);
}

Product product_for(const PackedMatrix& w) {
  switch (w.storage) {
    case Storage::kU2:
      return unsigned_product<U2>(w);
    case Storage::kU3:
      return unsigned_product<U3>(w);
    case Storage::kU4:
      return unsigned_product<U4>(w);
    case Storage::kU5:
      return unsigned_product<U5>(w);
    case Storage::kU6:
      return unsigned_product<U6>(w);
    case Storage::kS8:
      return w.affine == Affine::kOffsets ? product_of<S8, true, true>(w)
             : w.affine == Affine::kZeros ? product_of<S8, true, false>(w)
                                          : product_of<S8, false, false>(w);
    case Storage::kTable4:
      return product_of<Table4, false, false>(w);
    case Storage::kF32:
    case Storage::kF16:
    case Storage::kBF16:
    case Storage::kE4M3:
      break;
  }
  __builtin_trap();  // these have no int8 kernel; the caller knows
}

// Square error of 32 values as multiples of 1 / inverse, in parts and in units of that. Two sums
// because kernels_avx512_input.cpp has them side by side.
inline __m256 rounding_error(const __m256 (&v)[4], float inverse) {
  __m256 rest[4];
  for (int i = 0; i < 4; ++i) {
    const __m256 code = _mm256_mul_ps(v[i], _mm256_set1_ps(inverse));
    rest[i] =
        _mm256_sub_ps(code, _mm256_round_ps(code, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  const __m256 even = _mm256_fmadd_ps(rest[2], rest[2], _mm256_mul_ps(rest[0], rest[0]));
  const __m256 odd = _mm256_fmadd_ps(rest[3], rest[3], _mm256_mul_ps(rest[1], rest[1]));
  return _mm256_add_ps(even, odd);
}

// Codes of 32 values whose largest magnitude is `largest`; returns their scale. The rounding errors
// of slightly different scales are as good as independent: the best of three has a seventh less
// square error than the first, which is what the perplexity of int8 inputs depends on.
inline float quantize_block(const __m256 (&v)[4], float largest, __m256i (&q)[4]) {
  constexpr float kSteps[3] = {127.f, 125.8f, 124.6f};
  for (int i = 0; i < 4; ++i) q[i] = _mm256_setzero_si256();
  // A subnormal largest would make the inverse infinite. NaN and infinity stay in the scale.
  if (!(largest > 1e-30f)) return largest * 0.f;
  const float inverse = 1.f / largest;
  __m256 errors[3];
  for (int i = 0; i < 3; ++i) {
    constexpr float kUnits[3] = {1.f / (127.f * 127.f), 1.f / (125.8f * 125.8f),
                                 1.f / (124.6f * 124.6f)};
    errors[i] = _mm256_mul_ps(rounding_error(v, kSteps[i] * inverse), _mm256_set1_ps(kUnits[i]));
  }
  const __m256 sums =
      _mm256_hadd_ps(_mm256_hadd_ps(errors[0], errors[1]), _mm256_hadd_ps(errors[2], errors[2]));
  const __m128 totals = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  // Without branches, which nothing could predict.
  __m128 best = totals, step = _mm_set_ss(kSteps[0]);
  for (int i = 1; i < 3; ++i) {
    const __m128 total = i == 1 ? _mm_movehdup_ps(totals) : _mm_movehl_ps(totals, totals);
    step = _mm_blendv_ps(step, _mm_set_ss(kSteps[i]), _mm_cmplt_ss(total, best));
    best = _mm_min_ss(best, total);
  }
  const float chosen = _mm_cvtss_f32(step);
  const __m256 factor = _mm256_set1_ps(chosen * inverse);
  for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], factor));
  return largest / chosen;
}

}  // namespace

namespace avx2 {

void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  product_for(w)(w, x, tiles, tokens, y, y_stride);
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
    __m256i q[4];
    const float scale = quantize_block(v, largest, q);
    const __m256i halves[2] = {_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])};
    int sums[2];
    for (int i = 0; i < 2; ++i) {
      sums[i] = static_cast<int>(sum_lanes(_mm256_cvtepi32_ps(halves[i])));
    }
    if (parts == 1) sums[0] += sums[1];
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t cell = (token * out.blocks + block) * parts + part;
      out.sums[cell] = scale * static_cast<float>(sums[part]);
      out.code_sums[cell] = static_cast<float>(sums[part]);
      out.starts[cell] = out.start * sums[part];
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

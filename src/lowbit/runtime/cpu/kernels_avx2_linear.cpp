// y = x * W^T in fp32 for every layout: 16 rows of weights are unpacked to a panel of fp32 that
// stays in L1, then multiplied by 6 tokens at a time. Each output is one chain of FMAs over k in
// order, whatever the number of tokens.
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/quantized_avx2.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

constexpr int kPanelRows = 16;
constexpr int64_t kPanelCols = 256;   // 16 KiB of weights; a multiple of kBlockCols
constexpr int64_t kPanelTokens = 96;  // share one unpacking
constexpr int kTokens = 6;            // 12 sums in registers

// Weights of 8 rows, columns [first, last), to out[(k - first) * stride]; first is a multiple of
// kBlockCols.
void unpack_dense(const PackedMatrix& w, int64_t tile, int64_t first, int64_t last, float* out,
                  int64_t stride) {
  const int64_t start = tile * w.cols;
  const int64_t end = last < w.cols ? last : w.cols;
  for (int64_t k = first; k < end; ++k) {
    __m256 row;
    if (w.storage == Storage::kF32) {
      row = _mm256_load_ps(reinterpret_cast<const float*>(w.codes) + (start + k) * 8);
    } else {
      const __m128i half = _mm_load_si128(reinterpret_cast<const __m128i*>(w.codes) + start + k);
      row = w.storage == Storage::kF16
                ? _mm256_cvtph_ps(half)
                : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    }
    _mm256_storeu_ps(out + (k - first) * stride, row);
  }
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

// The 4 columns of a quad of signed bytes.
inline void unpack_quad(const Group& group, __m256i quad, float* out, int64_t stride) {
  _mm256_storeu_ps(out, group.weights(_mm256_srai_epi32(_mm256_slli_epi32(quad, 24), 24)));
  _mm256_storeu_ps(out + stride, group.weights(_mm256_srai_epi32(_mm256_slli_epi32(quad, 16), 24)));
  _mm256_storeu_ps(out + 2 * stride,
                   group.weights(_mm256_srai_epi32(_mm256_slli_epi32(quad, 8), 24)));
  _mm256_storeu_ps(out + 3 * stride, group.weights(_mm256_srai_epi32(quad, 24)));
}

// Quad number `quad` of a block, as signed bytes.
inline __m256i load_quad(Storage storage, const uint8_t* block, int quad) {
  const __m256i* at = reinterpret_cast<const __m256i*>(block);
  if (storage == Storage::kS8) return _mm256_load_si256(at + quad);
  const __m256i both = _mm256_load_si256(at + quad / 2);
  const __m256i nibbles =
      _mm256_and_si256(quad % 2 == 0 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
  return storage == Storage::kU4 ? nibbles : _mm256_shuffle_epi8(iq4_table(), nibbles);
}

void unpack_quantized(const PackedMatrix& w, int64_t tile, int64_t first, int64_t last, float* out,
                      int64_t stride) {
  const int64_t block_bytes = w.storage == Storage::kS8 ? 256 : 128;
  for (int64_t block = first / kBlockCols; block * kBlockCols < last; ++block) {
    const uint8_t* codes = w.codes + (tile * w.blocks + block) * block_bytes;
    const int64_t at = tile * w.groups + (w.split_blocks ? block * 2 : block / w.group_blocks);
    const Group groups[2] = {Group(w, at), Group(w, w.split_blocks ? at + 1 : at)};
    float* to = out + (block * kBlockCols - first) * stride;
    for (int quad = 0; quad < 8; ++quad) {
      unpack_quad(groups[quad / 4], load_quad(w.storage, codes, quad), to + quad * 4 * stride,
                  stride);
    }
  }
}

void unpack(const PackedMatrix& w, int64_t tile, int64_t first, int64_t last, float* out,
            int64_t stride) {
  const bool dense =
      w.storage == Storage::kF32 || w.storage == Storage::kF16 || w.storage == Storage::kBF16;
  (dense ? unpack_dense : unpack_quantized)(w, tile, first, last, out, stride);
}

// sums[t] += panel * x[t] over k in [0, count). panel: [count][16]  sums: [T][16]
template <int T>
inline void multiply(const float* panel, const float* x, int64_t x_stride, int64_t count,
                     float* sums) {
  __m256 low[T], high[T];
  for (int t = 0; t < T; ++t) {
    low[t] = _mm256_load_ps(sums + t * kPanelRows);
    high[t] = _mm256_load_ps(sums + t * kPanelRows + 8);
  }
  for (int64_t k = 0; k < count; ++k) {
    const __m256 a = _mm256_load_ps(panel + k * kPanelRows);
    const __m256 b = _mm256_load_ps(panel + k * kPanelRows + 8);
    for (int t = 0; t < T; ++t) {
      const __m256 value = _mm256_broadcast_ss(x + t * x_stride + k);
      low[t] = _mm256_fmadd_ps(a, value, low[t]);
      high[t] = _mm256_fmadd_ps(b, value, high[t]);
    }
  }
  for (int t = 0; t < T; ++t) {
    _mm256_store_ps(sums + t * kPanelRows, low[t]);
    _mm256_store_ps(sums + t * kPanelRows + 8, high[t]);
  }
}

void store_sums(const PackedMatrix& w, int64_t tile, int64_t tiles, const float* sums, float* y) {
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t row = (tile + i) * kTileRows;
    __m256 sum = _mm256_load_ps(sums + i * kTileRows);
    if (w.bias != nullptr) sum = _mm256_add_ps(sum, _mm256_load_ps(w.bias + row));
    if (w.rows - row >= kTileRows) {
      _mm256_storeu_ps(y + row, sum);
    } else {
      _mm256_maskstore_ps(y + row, lane_mask(w.rows - row), sum);
    }
  }
}

// 1 or 2 tiles from `tile` on, up to kPanelTokens tokens.
void panel_product(const PackedMatrix& w, const float* x, int64_t x_stride, int64_t tile,
                   int64_t tiles, Range tokens, float* y, int64_t y_stride) {
  alignas(64) float panel[kPanelCols * kPanelRows];
  alignas(64) float sums[kPanelTokens * kPanelRows];
  const int64_t count = tokens.last - tokens.first;
  for (int64_t i = 0; i < count * kPanelRows; ++i) sums[i] = 0;
  if (tiles == 1) {
    for (int64_t i = 0; i < kPanelCols * kPanelRows; ++i) panel[i] = 0;
  }
  for (int64_t k = 0; k < w.cols; k += kPanelCols) {
    const int64_t last = k + kPanelCols < w.cols ? k + kPanelCols : w.cols;
    for (int64_t i = 0; i < tiles; ++i) {
      unpack(w, tile + i, k, last, panel + i * kTileRows, kPanelRows);
    }
    int64_t token = 0;
    for (; token + kTokens <= count; token += kTokens) {
      multiply<kTokens>(panel, x + (tokens.first + token) * x_stride + k, x_stride, last - k,
                        sums + token * kPanelRows);
    }
    for (; token < count; ++token) {
      multiply<1>(panel, x + (tokens.first + token) * x_stride + k, x_stride, last - k,
                  sums + token * kPanelRows);
    }
  }
  for (int64_t token = 0; token < count; ++token) {
    store_sums(w, tile, tiles, sums + token * kPanelRows, y + (tokens.first + token) * y_stride);
  }
}

}  // namespace

namespace avx2 {

void linear_f32(const PackedMatrix& w, const float* x, int64_t x_stride, Range tiles, Range tokens,
                float* y, int64_t y_stride) {
  for (int64_t token = tokens.first; token < tokens.last; token += kPanelTokens) {
    const int64_t last = token + kPanelTokens < tokens.last ? token + kPanelTokens : tokens.last;
    for (int64_t tile = tiles.first; tile < tiles.last; tile += 2) {
      panel_product(w, x, x_stride, tile, tile + 1 < tiles.last ? 2 : 1, {token, last}, y,
                    y_stride);
    }
  }
}

void unpack_tile(const PackedMatrix& w, int64_t tile, float* out) {
  unpack(w, tile, 0, w.cols, out, kTileRows);
}

}  // namespace avx2
}  // namespace lowbit::cpu

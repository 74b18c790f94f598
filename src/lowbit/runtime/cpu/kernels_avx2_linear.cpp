// y = x * W^T in fp32 for every layout: 16 rows of weights are unpacked to a panel of fp32 that
// stays in L1, then multiplied by 6 tokens at a time. Each output is one chain of FMAs over k in
// order, whatever the number of tokens.
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/packed_avx2.h"
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
    const __m256 row = load_dense(w.storage, w.codes, start + k);
    _mm256_storeu_ps(out + (k - first) * stride, row);
  }
}

template <Storage kStorage>
void unpack_quantized(const PackedMatrix& w, int64_t tile, int64_t first, int64_t last, float* out,
                      int64_t stride) {
  constexpr int64_t kBytes = block_bytes(kStorage);
  for (int64_t block = first / kBlockCols; block * kBlockCols < last; ++block) {
    const uint8_t* codes = w.codes + (tile * w.blocks + block) * kBytes;
    const int64_t at = tile * w.groups + (w.split_blocks ? block * 2 : block / w.group_blocks);
    const Group groups[2] = {Group(w, at), Group(w, w.split_blocks ? at + 1 : at)};
    float* to = out + (block * kBlockCols - first) * stride;
    for (int quad = 0; quad < 8; ++quad) {
      __m256 weights[4];
      load_weights<kStorage>(w, groups[quad / 4], codes, quad, weights);
      for (int i = 0; i < 4; ++i) _mm256_storeu_ps(to + (quad * 4 + i) * stride, weights[i]);
    }
  }
}

using Unpack = void (*)(const PackedMatrix&, int64_t, int64_t, int64_t, float*, int64_t);

Unpack unpack_for(Storage storage) {
  switch (storage) {
    case Storage::kF32:
    case Storage::kF16:
    case Storage::kBF16:
      return unpack_dense;
    case Storage::kE4M3:
      return unpack_quantized<Storage::kE4M3>;
    case Storage::kU2:
      return unpack_quantized<Storage::kU2>;
    case Storage::kU3:
      return unpack_quantized<Storage::kU3>;
    case Storage::kU4:
      return unpack_quantized<Storage::kU4>;
    case Storage::kU5:
      return unpack_quantized<Storage::kU5>;
    case Storage::kU6:
      return unpack_quantized<Storage::kU6>;
    case Storage::kS8:
      return unpack_quantized<Storage::kS8>;
    case Storage::kTable4:
      return unpack_quantized<Storage::kTable4>;
  }
  return nullptr;
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

// 1 or 2 tiles from `tile` on, up to kPanelTokens tokens.
void panel_product(const PackedMatrix& w, const float* x, int64_t x_stride, int64_t tile,
                   int64_t tiles, Range tokens, float* y, int64_t y_stride) {
  alignas(64) float panel[kPanelCols * kPanelRows];
  alignas(64) float sums[kPanelTokens * kPanelRows];
  const int64_t count = tokens.last - tokens.first;
  const Unpack unpack = unpack_for(w.storage);
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
    for (int64_t i = 0; i < tiles; ++i) {
      store_rows(w, tile + i, _mm256_load_ps(sums + token * kPanelRows + i * kTileRows),
                 y + (tokens.first + token) * y_stride);
    }
  }
}

}  // namespace

namespace avx2 {

void linear_f32(const PackedMatrix& w, const float* x, int64_t x_stride, Range tiles, Range tokens,
                float* y, int64_t y_stride) {
  if (tokens.last - tokens.first == 1) {
    return vector_product(w, x + tokens.first * x_stride, tiles, y + tokens.first * y_stride);
  }
  for (int64_t token = tokens.first; token < tokens.last; token += kPanelTokens) {
    const int64_t last = token + kPanelTokens < tokens.last ? token + kPanelTokens : tokens.last;
    for (int64_t tile = tiles.first; tile < tiles.last; tile += 2) {
      panel_product(w, x, x_stride, tile, tile + 1 < tiles.last ? 2 : 1, {token, last}, y,
                    y_stride);
    }
  }
}

void unpack_tile(const PackedMatrix& w, int64_t tile, float* out) {
  unpack_for(w.storage)(w, tile, 0, w.cols, out, kTileRows);
}

}  // namespace avx2
}  // namespace lowbit::cpu

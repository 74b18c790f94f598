// y = x * W^T for quantized weights, int8 activations and many tokens with the tile multiplier: one
// vector of rows x 16 tokens at a time, over a vector type V as in linear_vnni.h and a type Tiles
// for the tile instructions. In an anonymous namespace: see kernels.h.
//
// A tile of activations (16 tokens x one group's columns of a block) is loaded as it lies in
// memory, one of weights from the panel of linear_vnni.h. A group's products have to leave the
// tiles before the next group's begin: they go through memory, in a ring of a few, because they
// arrive long after they were asked for. Until then those of earlier groups are scaled and added to
// sums that stay in registers for the slab. The int32 products of a block are exact, and the fp32
// operations that follow are those of linear_vnni.h in the same order, so both give the same bits.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cpu/kernels.h"
#include "lowbit/runtime/cpu/linear_vnni.h"

namespace lowbit::cpu {
namespace {

constexpr int kTileTokens = 16;

// Tiles multiply signed bytes, which have room for the zero points of all codes but 8-bit ones.
struct AmxKind {
  static constexpr bool kFolds = true;
  template <typename Codes, Affine kAffine>
  static constexpr bool kAddend = Codes::kSigned ? kAffine != Affine::kNone : false;
};

using Products = int32_t[kTileTokens][16];  // of one cell

constexpr int kAhead = 2;  // cells whose products are on their way

// Adds the products of one cell to 16 tokens' sums. scales, code_sums and sums: of the first token
// in this cell; scales are `blocks` apart, the others `cells`.
template <typename V, bool kAddend, bool kOffset>
inline void add_cell(const Panel<V>& panel, int64_t cell, int v, const Products& products,
                     int64_t blocks, int64_t cells, const float* scales, const float* code_sums,
                     const float* sums, typename V::Float (&y)[kTileTokens]) {
  const auto scale = V::load_floats(panel.scales[cell][v]);
#pragma GCC unroll 16
  for (int t = 0; t < kTileTokens; ++t) {
    auto product = V::to_float(V::load_ints(products[t]));
    if constexpr (kAddend) {
      product = V::multiply_add(V::load_floats(panel.addends[cell][v]),
                                V::broadcast(code_sums + t * cells), product);
    }
    y[t] = V::multiply_add(V::multiply(product, V::broadcast(scales + t * blocks)), scale, y[t]);
    if constexpr (kOffset) {
      y[t] = V::multiply_add(V::load_floats(panel.offsets[cell][v]),
                             V::broadcast(sums + t * cells), y[t]);
    }
  }
}

// Blocks [first, last) for a tile of tokens from `token` on and one vector of rows.
template <typename V, typename Tiles, bool kAddend, bool kOffset, int kParts>
void amx_tokens(const Panel<V>& panel, const QuantizedInput& x, int64_t first, int64_t last,
                int64_t token, int v, float (*y_sums)[kVectors][16]) {
  constexpr int kCols = kBlockCols / kParts;
  const int64_t blocks = x.blocks, stride = blocks * kBlockCols, cells = blocks * kParts;
  const int8_t* input = x.codes + token * stride + first * kBlockCols;
  const float* scales = x.scales + token * blocks + first;
  const float* code_sums = x.code_sums + token * cells + first * kParts;
  const float* sums = x.sums + token * cells + first * kParts;
  alignas(64) Products products[kAhead + 1];
  typename V::Float y[kTileTokens];
#pragma GCC unroll 16
  for (int t = 0; t < kTileTokens; ++t) y[t] = V::load_floats(y_sums[t][v]);
  const int64_t count = (last - first) * kParts;
  int slot = 0;
  for (int64_t cell = 0; cell < count + kAhead; ++cell) {
    if (cell < count) {
      const uint8_t* weights = panel.codes[cell / kParts][v][cell % kParts * (8 / kParts)];
      Tiles::multiply(cell, input + cell * kCols, stride, weights, products[slot]);
    }
    slot = slot == kAhead ? 0 : slot + 1;  // that of `done`
    if (cell < kAhead) continue;
    const int64_t done = cell - kAhead;
    add_cell<V, kAddend, kOffset>(panel, done, v, products[slot], blocks, cells,
                                  scales + done / kParts, code_sums + done, sums + done, y);
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTileTokens; ++t) V::store_floats(y_sums[t][v], y[t]);
}

template <typename V, typename Tiles, typename Codes, Affine kAffine, int kParts>
void amx_product(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  constexpr bool kAddend = AmxKind::kAddend<Codes, kAffine>, kOffset = kAffine == Affine::kOffsets;
  Tiles::configure(kBlockCols / kParts);
  Panel<V> panel;
  for (int64_t tile = tiles.first; tile < tiles.last; tile += kVectors * V::kTiles) {
    const PanelRows rows = panel_rows<V>(tile, tiles.last);
    for (int64_t token = tokens.first; token < tokens.last; token += kMostTokens) {
      const int64_t end = token + kMostTokens < tokens.last ? token + kMostTokens : tokens.last;
      __builtin_memset(panel.sums, 0, static_cast<size_t>(end - token) * sizeof panel.sums[0]);
      for (int64_t first = 0; first < w.blocks; first += kSlabBlocks) {
        const int64_t last = first + kSlabBlocks < w.blocks ? first + kSlabBlocks : w.blocks;
        unpack_panel<V, AmxKind, Codes, kAffine, kParts>(w, rows, first, last, panel);
        // g++ does not see that tile loads read memory.
        __asm__ volatile("" : : "r"(&panel) : "memory");
        for (int64_t t = token; t < end; t += kTileTokens) {
          for (int v = 0; v < kVectors; ++v) {
            if (!rows.exists[v]) continue;
            amx_tokens<V, Tiles, kAddend, kOffset, kParts>(panel, x, first, last, t, v,
                                                           panel.sums + (t - token));
          }
        }
      }
      store_panel<V>(w, rows, panel, {token, end}, y, y_stride);
    }
  }
  Tiles::release();
}

template <typename V, typename Tiles>
struct Amx {
  template <typename Codes, Affine kAffine, int kParts>
  static void run(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                  float* y, int64_t y_stride) {
    amx_product<V, Tiles, Codes, kAffine, kParts>(w, x, tiles, tokens, y, y_stride);
  }
};

// For a multiple of 16 tokens.
template <typename V, typename Tiles>
void amx_linear(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens, float* y,
                int64_t y_stride) {
  choose_codes<Amx<V, Tiles>, V>(w)(w, x, tiles, tokens, y, y_stride);
}

}  // namespace
}  // namespace lowbit::cpu

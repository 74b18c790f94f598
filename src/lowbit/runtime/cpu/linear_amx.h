// y = x * W^T for quantized weights, int8 activations and many tokens with the tile multiplier: two
// vectors of rows x 32 tokens at a time, over a vector type V as in linear_vnni.h and a type Tiles
// for the tile instructions. In an anonymous namespace: see kernels.h.
//
// A tile of activations (16 tokens x one group's columns of a block) is loaded as it lies in
// memory, one of weights from the panel of linear_vnni.h. A group's products have to leave the
// tiles before the next group's begin: they go through memory, and while one cell's are on their
// way, the one's before are scaled and added to sums in L1. The int32 products of a block are
// exact, and the fp32 operations that follow are those of linear_vnni.h in the same order, so both
// give the same bits.
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

// Of one cell: [tile of tokens][vector][token][lane]
using Products = int32_t[2][kVectors][kTileTokens * 16];

// Adds the products of one cell and kCount tiles of tokens to y_sums. scales, code_sums and sums:
// of the first token in this cell; scales are `blocks` apart, the others `cells`.
template <typename V, bool kAddend, bool kOffset, int kCount>
inline void add_cell(const Panel<V>& panel, int64_t cell, const Products& products, int64_t blocks,
                     int64_t cells, const float* scales, const float* code_sums, const float* sums,
                     float (*y_sums)[kVectors][16]) {
  typename V::Float scale[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) scale[v] = V::load_floats(panel.scales[cell][v]);
#pragma GCC unroll 2
  for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 16
    for (int t = 0; t < kTileTokens; ++t) {
      const int token = i * kTileTokens + t;
      const auto x_scale = V::broadcast(scales + token * blocks);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        float* y = y_sums[token][v];
        auto product = V::to_float(V::load_ints(products[i][v] + t * 16));
        if constexpr (kAddend) {
          product = V::multiply_add(V::load_floats(panel.addends[cell][v]),
                                    V::broadcast(code_sums + token * cells), product);
        }
        product = V::multiply(product, x_scale);
        auto sum = V::multiply_add(product, scale[v], V::load_floats(y));
        if constexpr (kOffset) {
          sum = V::multiply_add(V::load_floats(panel.offsets[cell][v]),
                                V::broadcast(sums + token * cells), sum);
        }
        V::store_floats(y, sum);
      }
    }
  }
}

// Blocks [first, last) for kCount tiles of tokens from `token` on.
template <typename V, typename Tiles, bool kAddend, bool kOffset, int kParts, int kCount>
void amx_tokens(const Panel<V>& panel, const QuantizedInput& x, int64_t first, int64_t last,
                int64_t token, float (*y_sums)[kVectors][16]) {
  constexpr int kCols = kBlockCols / kParts;
  const int64_t blocks = x.blocks, stride = blocks * kBlockCols, cells = blocks * kParts;
  const int8_t* input = x.codes + token * stride + first * kBlockCols;
  const float* scales = x.scales + token * blocks + first;
  const float* code_sums = x.code_sums + token * cells + first * kParts;
  const float* sums = x.sums + token * cells + first * kParts;
  alignas(64) Products products[2];
  const int64_t count = (last - first) * kParts;
  for (int64_t cell = 0; cell <= count; ++cell) {
    if (cell < count) {
      const uint8_t* weights = panel.codes[cell / kParts][0][cell % kParts * (8 / kParts)];
      Tiles::template multiply<kCount>(input + cell * kCols, stride, weights,
                                       sizeof panel.codes[0][0], products[cell % 2]);
    }
    if (cell == 0) continue;
    const int64_t done = cell - 1;
    add_cell<V, kAddend, kOffset, kCount>(panel, done, products[done % 2], blocks, cells,
                                          scales + done / kParts, code_sums + done, sums + done,
                                          y_sums);
  }
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
        int64_t t = token;
        for (; t + 2 * kTileTokens <= end; t += 2 * kTileTokens) {
          amx_tokens<V, Tiles, kAddend, kOffset, kParts, 2>(panel, x, first, last, t,
                                                            panel.sums + (t - token));
        }
        if (t < end) {
          amx_tokens<V, Tiles, kAddend, kOffset, kParts, 1>(panel, x, first, last, t,
                                                            panel.sums + (t - token));
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

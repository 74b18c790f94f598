// y = x * W^T for quantized weights, int8 activations and many tokens with the tile multiplier: one
// vector of rows x 16 tokens at a time, over a vector type V as in linear_vnni.h and a type Tiles
// for the tile instructions. In an anonymous namespace: see kernels.h.
//
// A tile of activations (16 tokens x one group's columns of a block) lies as arrange_tokens() has
// put it, one of weights in the panel of linear_vnni.h. A group's products have to leave the tiles
// before the next group's begin, through memory, to be scaled and added to sums that stay in
// registers for the slab. No step of that may wait for the one before it: at any time one cell's
// operands are loaded, the next earlier one's multiplied, the one's before stored and the one's
// before that added, the last a quarter at a time between the tile instructions, since a core that
// two threads share looks ahead no further. The int32 products of a block are exact, and the fp32
// operations that follow are those of linear_vnni.h in the same order, so both give the same bits.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cpu/kernels.h"
#include "lowbit/runtime/cpu/linear_vnni.h"

namespace lowbit::cpu {
namespace {

constexpr int kTileTokens = 16;
constexpr int64_t kTileSlab = 12;  // blocks: with its inputs half of L1, of which others use some

// Fills the tile_ arrays of x for tokens [16 tile, 16 tile + 16).
inline void arrange_tokens(int64_t tile, const QuantizedInput& x) {
  const int64_t cells = x.blocks * (kBlockCols / x.sum_cols);
  for (int64_t t = 0; t < kTileTokens; ++t) {
    const int64_t token = tile * kTileTokens + t;
    for (int64_t block = 0; block < x.blocks; ++block) {
      const int64_t to = (tile * x.blocks + block) * kTileTokens + t;
      __builtin_memcpy(x.tile_codes + to * kBlockCols,
                       x.codes + (token * x.blocks + block) * kBlockCols, kBlockCols);
      x.tile_scales[to] = x.scales[token * x.blocks + block];
    }
    for (int64_t cell = 0; cell < cells; ++cell) {
      const int64_t to = (tile * cells + cell) * kTileTokens + t;
      x.tile_sums[to] = x.sums[token * cells + cell];
      x.tile_code_sums[to] = x.code_sums[token * cells + cell];
    }
  }
}

// Tiles multiply signed bytes, which have room for the zero points of all codes but 8-bit ones.
struct AmxKind {
  static constexpr bool kFolds = true;
  template <typename Codes, Affine kAffine>
  static constexpr bool kAddend = Codes::kSigned ? kAffine != Affine::kNone : false;
};

using Products = int32_t[kTileTokens][16];  // of one cell

// The cells of a slab, for one vector of rows after another, for one tile of tokens after another.
struct CellWalk {
  int64_t cells, vectors;
  int64_t cell = 0, v = 0, tile = 0;

  inline void next() {
    if (++cell < cells) return;
    cell = 0;
    if (++v < vectors) return;
    v = 0;
    ++tile;
  }
};

// Products of a slab of weights with some tiles of tokens.
template <typename V, typename Tiles, bool kAddend, bool kOffset, int kParts>
struct SlabProduct {
  using Sums = float (*)[kVectors][16];

  Panel<V>& panel;
  const QuantizedInput& x;
  int64_t first;       // block
  int64_t token_tile;  // the first
  CellWalk loaded, added;

  // What the cell `added` is scaled by.
  struct Terms {
    const float *scales, *code_sums, *sums;  // of 16 tokens
    typename V::Float scale;
  };
  [[gnu::always_inline]] inline Terms terms() const {
    const int64_t blocks = (token_tile + added.tile) * x.blocks + first;
    const int64_t cell = (blocks * kParts + added.cell) * kTileTokens;
    return {x.tile_scales + (blocks + added.cell / kParts) * kTileTokens, x.tile_code_sums + cell,
            x.tile_sums + cell, V::load_floats(panel.scales[added.cell][added.v])};
  }

  // Quarter `quarter` of the tokens' sums of the cell `added`.
  [[gnu::always_inline]] inline void add(int quarter, const Terms& terms,
                                         const Products& cell_products,
                                         typename V::Float (&y)[kTileTokens]) const {
#pragma GCC unroll 4
    for (int t = quarter * 4; t < quarter * 4 + 4; ++t) {
      auto product = V::to_float(V::load_ints(cell_products[t]));
      if constexpr (kAddend) {
        product = V::multiply_add(V::load_floats(panel.addends[added.cell][added.v]),
                                  V::broadcast(terms.code_sums + t), product);
      }
      product = V::multiply(product, V::broadcast(terms.scales + t));
      y[t] = V::multiply_add(product, terms.scale, y[t]);
      if constexpr (kOffset) {
        y[t] = V::multiply_add(V::load_floats(panel.offsets[added.cell][added.v]),
                               V::broadcast(terms.sums + t), y[t]);
      }
    }
  }

  inline Sums sums() const { return panel.sums + added.tile * kTileTokens; }

  // Loads cell i + 1, multiplies cell i of `total`, stores cell i - 1 and adds cell i - 2.
  template <int kParity>
  [[gnu::always_inline]] inline void step(int64_t i, int64_t total, Products (&products)[2],
                                          typename V::Float (&y)[kTileTokens]) {
    const bool adds = i >= 2;
    const Products& ready = products[kParity];
    const Terms at = terms();
    if (adds && added.cell == 0) {
#pragma GCC unroll 16
      for (int t = 0; t < kTileTokens; ++t) y[t] = V::load_floats(sums()[t][added.v]);
    }
    const bool loads = i + 1 < total;
    if (loads) [[likely]] load_inputs<1 - kParity>();
    if (adds) [[likely]] add(0, at, ready, y);
    if (loads) [[likely]] load_weights<1 - kParity>();
    if (adds) [[likely]] add(1, at, ready, y);
    if (i < total) [[likely]] Tiles::template multiply<kParity>();
    if (adds) [[likely]] add(2, at, ready, y);
    if (i >= 1 && i <= total) [[likely]] {
      Tiles::template store<1 - kParity>(products[1 - kParity]);
    }
    if (!adds) return;
    add(3, at, ready, y);
    if (added.cell + 1 == added.cells) {
#pragma GCC unroll 16
      for (int t = 0; t < kTileTokens; ++t) V::store_floats(sums()[t][added.v], y[t]);
    }
    added.next();
  }

  template <int kParity>
  [[gnu::always_inline]] inline void load_inputs() {
    const int64_t cell = loaded.cell, block = first + cell / kParts;
    const int8_t* from = x.tile_codes + ((token_tile + loaded.tile) * x.blocks + block) *
                                            (kTileTokens * kBlockCols);
    Tiles::template load_inputs<kParity>(from + cell % kParts * (kBlockCols / kParts));
  }
  template <int kParity>
  [[gnu::always_inline]] inline void load_weights() {
    const int64_t cell = loaded.cell;
    Tiles::template load_weights<kParity>(
        panel.codes[cell / kParts][loaded.v][cell % kParts * (8 / kParts)]);
    loaded.next();
  }

  // For `tiles` tiles of tokens.
  void run(int64_t tiles) {
    const int64_t total = tiles * added.vectors * added.cells;
    alignas(64) Products products[2];
    typename V::Float y[kTileTokens];
#pragma GCC unroll 16
    for (int t = 0; t < kTileTokens; ++t) y[t] = V::float_zero();
    load_inputs<0>();
    load_weights<0>();
    for (int64_t i = 0; i < total + 2; ++i) {
      if (i % 2 == 0) {
        step<0>(i, total, products, y);
      } else {
        step<1>(i, total, products, y);
      }
    }
  }
};

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
      for (int64_t first = 0; first < w.blocks; first += kTileSlab) {
        const int64_t last = first + kTileSlab < w.blocks ? first + kTileSlab : w.blocks;
        unpack_panel<V, AmxKind, Codes, kAffine, kParts>(w, rows, first, last, panel);
        // g++ does not see that tile loads read memory.
        __asm__ volatile("" : : "r"(&panel) : "memory");
        const CellWalk walk{(last - first) * kParts, rows.exists[1] ? 2 : 1};
        SlabProduct<V, Tiles, kAddend, kOffset, kParts> product{
            panel, x, first, token / kTileTokens, walk, walk};
        product.run((end - token) / kTileTokens);
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

// For tiles of 16 tokens: tokens.first and last are multiples of that.
template <typename V, typename Tiles>
void amx_linear(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens, float* y,
                int64_t y_stride) {
  choose_codes<Amx<V, Tiles>, V>(w)(w, x, tiles, tokens, y, y_stride);
}

}  // namespace
}  // namespace lowbit::cpu

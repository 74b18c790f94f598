// y = x * W^T for quantized weights, int8 activations and many tokens with the tile multiplier:
// 16 rows x up to 64 tokens at a time, over a vector type V as in linear_vnni.h and a type Tiles
// for the tile instructions. In an anonymous namespace: see kernels.h.
//
// A tile of activations (16 tokens x one group's columns of a block) is loaded as it lies in
// memory. Weights of 16 rows are unpacked to bytes, a slab of columns at a time, into a panel that
// stays in L1 and serves all tokens of the pass. The int32 products of a block are exact, and the
// fp32 operations that follow are those of linear_vnni.h in the same order, so both give the same
// bits.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cpu/kernels.h"
#include "lowbit/runtime/cpu/linear_vnni.h"

namespace lowbit::cpu {
namespace {

constexpr int kTileTokens = 16;
constexpr int kMostTokens = 64;       // of one pass: 4 tiles of products
constexpr int64_t kSlabBlocks = 32;   // 16 KiB of weights as bytes
constexpr int64_t kBlockBytes = 512;  // of the panel: 16 rows x 32 columns

// 16 rows (two tiles, `tile_step` apart) of some tokens.
struct Work {
  const PackedMatrix& w;
  const QuantizedInput& x;
  int64_t tile, tile_step;
  int64_t token;
  int count;  // of tokens, a multiple of 16
};

// One group of one block: adds to y_sums[count][16].
template <typename V, typename Tiles, typename Codes, bool kShift, int kParts>
inline void add_part(const Work& work, int64_t cell, int64_t group, const uint8_t* panel,
                     float* y_sums) {
  constexpr int kCols = kBlockCols / kParts;
  const QuantizedInput& x = work.x;
  const int64_t stride = x.blocks * kBlockCols, cells = x.blocks * kParts;
  const int64_t step_groups = work.tile_step * work.w.groups, block = cell / kParts;
  alignas(64) int32_t products[kMostTokens / kTileTokens][kTileTokens * 16];
  Tiles::load_weights(panel);
  for (int i = 0; i < work.count / kTileTokens; ++i) {
    const int8_t* codes = x.codes + (work.token + i * kTileTokens) * stride + cell * kCols;
    Tiles::template multiply<Codes::kSigned>(i, codes, stride, products[i]);
  }
  const auto scale = load_scale<V, Codes>(work.w, group, step_groups);
  auto shift = V::float_zero();
  if constexpr (kShift) shift = load_shift<V>(work.w, scale, group, step_groups);
  const float* scales = x.scales + work.token * x.blocks + block;
  const float* sums = x.sums + work.token * cells + cell;
  for (int t = 0; t < work.count; ++t) {
    const auto product = V::load_ints(products[t / kTileTokens] + t % kTileTokens * 16);
    const auto scaled = V::multiply(V::to_float(product), V::broadcast(scales + t * x.blocks));
    auto sum = V::multiply_add(scaled, scale, V::load_floats(y_sums + t * 16));
    if constexpr (kShift) sum = V::multiply_add(shift, V::broadcast(sums + t * cells), sum);
    V::store_floats(y_sums + t * 16, sum);
  }
}

template <typename V, typename Tiles, typename Codes, bool kShift, int kParts>
void amx_tiles(const Work& work, float* y, int64_t y_stride) {
  constexpr int64_t kPartBytes = kBlockBytes / kParts;
  const PackedMatrix& w = work.w;
  constexpr int64_t kBytes = vnni_block_bytes(Codes::kStorage);
  const int64_t tile_bytes = w.blocks * kBytes;
  const int64_t step_bytes = work.tile_step * tile_bytes;
  const uint8_t* codes = w.codes + work.tile * tile_bytes;
  alignas(64) float y_sums[kMostTokens * 16] = {};
  alignas(64) uint8_t panel[kSlabBlocks * kBlockBytes];
  for (int64_t first = 0; first < w.blocks; first += kSlabBlocks) {
    const int64_t last = first + kSlabBlocks < w.blocks ? first + kSlabBlocks : w.blocks;
    uint8_t* to = panel;
    for (int64_t block = first; block < last; ++block) {
#pragma GCC unroll 8
      for (int quad = 0; quad < 8; ++quad, to += 64) {
        V::store_ints(to, Codes::load(w, codes + block * kBytes, step_bytes, quad));
      }
    }
    // g++ does not see that tile loads read memory.
    __asm__ volatile("" : : "r"(panel) : "memory");
    for (int64_t block = first; block < last; ++block) {
      for (int part = 0; part < kParts; ++part) {
        const int64_t group = kParts == 2 ? block * 2 + part : block / w.group_blocks;
        add_part<V, Tiles, Codes, kShift, kParts>(
            work, block * kParts + part, work.tile * w.groups + group,
            panel + (block - first) * kBlockBytes + part * kPartBytes, y_sums);
      }
    }
  }
  for (int t = 0; t < work.count; ++t) {
    V::store_rows(w, work.tile, work.tile_step, V::load_floats(y_sums + t * 16),
                  y + (work.token + t) * y_stride);
  }
}

template <typename V, typename Tiles, typename Codes, bool kShift, int kParts>
void amx_product(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  Tiles::configure(kBlockCols / kParts);
  for (int64_t tile = tiles.first; tile < tiles.last; tile += 2) {
    const int64_t step = tile + 1 < tiles.last ? 1 : 0;
    for (int64_t token = tokens.first; token < tokens.last; token += kMostTokens) {
      const int64_t left = tokens.last - token;
      const int count = static_cast<int>(left < kMostTokens ? left : kMostTokens);
      amx_tiles<V, Tiles, Codes, kShift, kParts>({w, x, tile, step, token, count}, y, y_stride);
    }
  }
  Tiles::release();
}

template <typename V, typename Tiles>
struct Amx {
  template <typename Codes, bool kShift, int kParts>
  static void run(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                  float* y, int64_t y_stride) {
    amx_product<V, Tiles, Codes, kShift, kParts>(w, x, tiles, tokens, y, y_stride);
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

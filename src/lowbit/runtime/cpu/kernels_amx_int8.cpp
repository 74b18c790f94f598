// Quantized weights times int8 activations with AMX; tokens that do not fill a tile go to VNNI.
#include "lowbit/runtime/cpu/amx_tiles.h"
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/linear_amx.h"
#include "lowbit/runtime/cpu/simd_avx512.h"

namespace lowbit::cpu {
namespace {

// Tiles 0 and 1 hold products, 4 and 5 activations, 6 and 7 weights.
struct AmxTiles {
  // `cols` columns are multiplied.
  static inline void configure(int cols) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = static_cast<uint16_t>(tile == 4 || tile == 5 ? cols : 64);
      config.rows[tile] = static_cast<uint8_t>(tile >= 6 ? cols / 4 : 16);
    }
    load_tile_config(config);
  }

  static inline void release() { _tile_release(); }

  // The intrinsics of g++ 12 take literal numbers only.

  // Columns of a tile of tokens.
  template <int kTile>
  static inline void load_inputs(const int8_t* from) {
    if constexpr (kTile == 0) _tile_loadd(4, from, kBlockCols);
    if constexpr (kTile == 1) _tile_loadd(5, from, kBlockCols);
  }
  template <int kTile>
  static inline void load_weights(const uint8_t* from) {
    if constexpr (kTile == 0) _tile_loadd(6, from, 64);
    if constexpr (kTile == 1) _tile_loadd(7, from, 64);
  }
  template <int kTile>
  static inline void multiply() {
    if constexpr (kTile == 0) {
      _tile_zero(0);
      _tile_dpbssd(0, 4, 6);
    } else {
      _tile_zero(1);
      _tile_dpbssd(1, 5, 7);
    }
  }
  template <int kTile>
  static inline void store(Products& products) {
    if constexpr (kTile == 0) _tile_stored(0, products, 64);
    if constexpr (kTile == 1) _tile_stored(1, products, 64);
    // g++ does not see that tile stores write memory.
    __asm__ volatile("" : : "r"(&products) : "memory");
  }
};

}  // namespace

namespace amx {

void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  const int64_t first = (tokens.first + kTileTokens - 1) / kTileTokens * kTileTokens;
  const int64_t last = tokens.last / kTileTokens * kTileTokens;
  if (x.tile_codes == nullptr || first >= last) {
    return avx512::linear_int8(w, x, tiles, tokens, y, y_stride);
  }
  avx512::linear_int8(w, x, tiles, {tokens.first, first}, y, y_stride);
  amx_linear<Avx512, AmxTiles>(w, x, tiles, {first, last}, y, y_stride);
  avx512::linear_int8(w, x, tiles, {last, tokens.last}, y, y_stride);
}

void arrange_input(int64_t tile, const QuantizedInput& x) { arrange_tokens(tile, x); }

}  // namespace amx
}  // namespace lowbit::cpu

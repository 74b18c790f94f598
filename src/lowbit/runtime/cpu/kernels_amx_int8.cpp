// Quantized weights times int8 activations with AMX; tokens that do not fill a tile go to VNNI.
#include "lowbit/runtime/cpu/amx_tiles.h"
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/linear_amx.h"
#include "lowbit/runtime/cpu/simd_avx512.h"

namespace lowbit::cpu {
namespace {

// Tiles 0 and 1 hold products, 4 activations, 6 weights.
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

  // products = x * w for 16 tokens, `stride` apart, and a vector of weights.
  static inline void multiply(int64_t cell, const int8_t* x, int64_t stride,
                              const uint8_t* weights, Products& products) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(4, x, stride);
    if (cell % 2 == 0) {
      _tile_zero(0);
      _tile_dpbssd(0, 4, 6);
      _tile_stored(0, products, 64);
    } else {
      _tile_zero(1);
      _tile_dpbssd(1, 4, 6);
      _tile_stored(1, products, 64);
    }
    // g++ does not see that tile stores write memory.
    __asm__ volatile("" : : "r"(&products) : "memory");
  }
};

}  // namespace

namespace amx {

void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  const int64_t filled = tokens.first + (tokens.last - tokens.first) / kTileTokens * kTileTokens;
  if (filled > tokens.first) {
    amx_linear<Avx512, AmxTiles>(w, x, tiles, {tokens.first, filled}, y, y_stride);
  }
  avx512::linear_int8(w, x, tiles, {filled, tokens.last}, y, y_stride);
}

}  // namespace amx
}  // namespace lowbit::cpu

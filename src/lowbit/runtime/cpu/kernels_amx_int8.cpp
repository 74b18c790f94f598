// Quantized weights times int8 activations with AMX; tokens that do not fill a tile go to VNNI.
#include "lowbit/runtime/cpu/amx_tiles.h"
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/linear_amx.h"
#include "lowbit/runtime/cpu/simd_avx512.h"

namespace lowbit::cpu {
namespace {

// Tiles 0 to 3 hold products, 4 and 5 activations, 6 and 7 weights.
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

  // products = x * w for kCount tiles of 16 tokens and two vectors of weights, `weights_step` bytes
  // apart.
  template <int kCount>
  static inline void multiply(const int8_t* x, int64_t stride, const uint8_t* weights,
                              int64_t weights_step, Products& products) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(7, weights + weights_step, 64);
    _tile_loadd(4, x, stride);
    _tile_zero(0);
    _tile_dpbssd(0, 4, 6);
    _tile_zero(1);
    _tile_dpbssd(1, 4, 7);
    if constexpr (kCount == 2) {
      _tile_loadd(5, x + kTileTokens * stride, stride);
      _tile_zero(2);
      _tile_dpbssd(2, 5, 6);
      _tile_zero(3);
      _tile_dpbssd(3, 5, 7);
    }
    _tile_stored(0, products[0][0], 64);
    _tile_stored(1, products[0][1], 64);
    if constexpr (kCount == 2) {
      _tile_stored(2, products[1][0], 64);
      _tile_stored(3, products[1][1], 64);
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

// Quantized weights times int8 activations with AMX; tokens that do not fill a tile go to VNNI.
#include "lowbit/runtime/cpu/amx_tiles.h"
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/linear_amx.h"
#include "lowbit/runtime/cpu/simd_avx512.h"

namespace lowbit::cpu {
namespace {

// Tile 0 holds products, 4 activations, 6 weights.
struct AmxTiles {
  // `cols` columns are multiplied.
  static inline void configure(int cols) {
    TileConfig config;
    for (int tile = 0; tile < 7; ++tile) {
      config.row_bytes[tile] = static_cast<uint16_t>(tile == 4 ? cols : 64);
      config.rows[tile] = static_cast<uint8_t>(tile == 6 ? cols / 4 : 16);
    }
    load_tile_config(config);
  }

  static inline void release() { _tile_release(); }
  static inline void load_weights(const uint8_t* panel) { _tile_loadd(6, panel, 64); }

  // products = x * w for 16 tokens.
  template <bool kSigned>
  static inline void multiply(const int8_t* x, int64_t stride, int32_t* products) {
    _tile_loadd(4, x, stride);
    _tile_zero(0);
    if constexpr (kSigned) {
      _tile_dpbssd(0, 4, 6);
    } else {
      _tile_dpbsud(0, 4, 6);
    }
    _tile_stored(0, products, 64);
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

#include <immintrin.h>

#include "lowbit/bench/probes.h"
#include "lowbit/runtime/cpu/amx_tiles.h"

namespace lowbit::bench {
namespace {

// Tiles 0 to 3 are sums, 4 and 5, 6 and 7 operands.
void start() {
  cpu::TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {  // there are no more
    config.row_bytes[tile] = 64;
    config.rows[tile] = 16;
  }
  cpu::load_tile_config(config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

void dot_int8(int64_t rounds) {
  start();
  for (int64_t round = 0; round < rounds; ++round) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
}

void dot_bf16(int64_t rounds) {
  start();
  for (int64_t round = 0; round < rounds; ++round) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

const PeakProbe kInt8[] = {{"int8 tdpbssd (AMX)", 4 * 16 * 16 * 64 * 2.0, dot_int8}};
const PeakProbe kBf16[] = {{"bf16 tdpbf16ps (AMX)", 4 * 16 * 16 * 32 * 2.0, dot_bf16}};

}  // namespace

extern const Probes kAmxInt8Probes = {"amx", kInt8, 1, nullptr};
extern const Probes kAmxBf16Probes = {"amx", kBf16, 1, nullptr};

}  // namespace lowbit::bench

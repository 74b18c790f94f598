// The tile registers of AMX. In an anonymous namespace: see kernels.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lowbit::cpu {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

inline void load_tile_config(const TileConfig& config) {
  // g++ 12 takes the instruction to read 8 bytes and may store the rest too late.
  __asm__ volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

}  // namespace
}  // namespace lowbit::cpu

#include "lowbit/quantize/k_blocks.h"

#include <cstring>

#include "lowbit/quantize/k_fit.h"

namespace lowbit {

namespace {

constexpr KGrid kQ2K{16, 0, 3, 0, 15, 15};
constexpr KGrid kQ3K{16, -4, 3, -32, 31, 0};
constexpr KGrid kQ4K{8, 0, 15, 0, 63, 63};
constexpr KGrid kQ5K{8, 0, 31, 0, 63, 63};
constexpr KGrid kQ6K{16, -32, 31, -128, 127, 0};

void store_half(uint16_t half, uint8_t* out) { std::memcpy(out, &half, 2); }

// ORs value << shift into a byte.
void put(uint8_t& byte, int value, int shift) {
  byte = static_cast<uint8_t>(byte | value << shift);
}

// Two bits of each code: of 128 codes in 32 bytes, run `i` of 32 codes takes bits 2 * (i % 4).
void store_pairs(const KBlock& block, int bias, uint8_t* out) {
  for (int i = 0; i < kKBlock; ++i) {
    put(out[i / 128 * 32 + i % 32], (block.codes[i] + bias) & 3, i / 32 % 4 * 2);
  }
}

// One bit of each code, of run `i` of 32 codes in bit i of 32 bytes.
void store_high_bits(const KBlock& block, int bias, int bit, uint8_t* out) {
  for (int i = 0; i < kKBlock; ++i) {
    put(out[i % 32], (block.codes[i] + bias) >> bit & 1, i / 32);
  }
}

// Low nibbles: of 64 codes in 32 bytes, the first 32 low.
void store_nibbles(const KBlock& block, uint8_t* out) {
  for (int i = 0; i < kKBlock; ++i) {
    put(out[i / 64 * 32 + i % 32], block.codes[i] & 15, i / 32 % 2 * 4);
  }
}

// Eight 6-bit scales and minimums in 12 bytes: the upper pairs of the last four of each lie above
// the first four.
void store_six_bits(const KBlock& block, uint8_t* out) {
  for (int g = 0; g < 4; ++g) {
    put(out[g], block.scales[g], 0);
    put(out[g + 4], block.minimums[g], 0);
    put(out[g + 8], block.scales[g + 4] & 15, 0);
    put(out[g + 8], block.minimums[g + 4] & 15, 4);
    put(out[g], block.scales[g + 4] >> 4, 6);
    put(out[g + 4], block.minimums[g + 4] >> 4, 6);
  }
}

// `out` is zeros.
void store_q2_k(const KBlock& block, uint8_t* out) {
  for (int g = 0; g < 16; ++g) {
    put(out[g], block.scales[g], 0);
    put(out[g], block.minimums[g], 4);
  }
  store_pairs(block, 0, out + 16);
  store_half(block.d, out + 80);
  store_half(block.dmin, out + 82);
}

void store_q3_k(const KBlock& block, uint8_t* out) {
  store_high_bits(block, 4, 2, out);
  store_pairs(block, 4, out + 32);
  for (int g = 0; g < 16; ++g) {
    const int scale = block.scales[g] + 32;
    put(out[96 + g % 8], scale & 15, g / 8 * 4);
    put(out[104 + g % 4], scale >> 4, g / 4 * 2);
  }
  store_half(block.d, out + 108);
}

void store_q4_k(const KBlock& block, uint8_t* out) {
  store_half(block.d, out);
  store_half(block.dmin, out + 2);
  store_six_bits(block, out + 4);
  store_nibbles(block, out + 16);
}

void store_q5_k(const KBlock& block, uint8_t* out) {
  store_half(block.d, out);
  store_half(block.dmin, out + 2);
  store_six_bits(block, out + 4);
  store_high_bits(block, 0, 4, out + 16);
  store_nibbles(block, out + 48);
}

// Per half of 128 codes: 64 bytes of nibbles (codes i and i + 64), 32 bytes of upper pairs.
void store_q6_k(const KBlock& block, uint8_t* out) {
  for (int i = 0; i < kKBlock; ++i) {
    const int code = block.codes[i] + 32;
    put(out[i / 128 * 64 + i % 64], code & 15, i / 64 % 2 * 4);
    put(out[128 + i / 128 * 32 + i % 32], code >> 4, i / 32 % 4 * 2);
  }
  for (int g = 0; g < 16; ++g) out[192 + g] = static_cast<uint8_t>(block.scales[g]);
  store_half(block.d, out + 208);
}

bool encode(std::span<const float> row, const KGrid& grid, int bytes,
            void (*store)(const KBlock&, uint8_t*), uint8_t* out) {
  bool fits = true;
  KBlock block;
  for (size_t at = 0; at < row.size(); at += kKBlock, out += bytes) {
    fits &= fit_k_block(row.data() + at, grid, block);
    std::memset(out, 0, static_cast<size_t>(bytes));
    store(block, out);
  }
  return fits;
}

}  // namespace

bool encode_q2_k(std::span<const float> row, uint8_t* out) {
  return encode(row, kQ2K, 84, store_q2_k, out);
}
bool encode_q3_k(std::span<const float> row, uint8_t* out) {
  return encode(row, kQ3K, 110, store_q3_k, out);
}
bool encode_q4_k(std::span<const float> row, uint8_t* out) {
  return encode(row, kQ4K, 144, store_q4_k, out);
}
bool encode_q5_k(std::span<const float> row, uint8_t* out) {
  return encode(row, kQ5K, 176, store_q5_k, out);
}
bool encode_q6_k(std::span<const float> row, uint8_t* out) {
  return encode(row, kQ6K, 210, store_q6_k, out);
}

}  // namespace lowbit

// The one bit-packing rule: codes of `bits` bits (1-8) form a little-endian bit stream; code i
// occupies bits [i * bits, (i + 1) * bits). Eight neighbouring codes take exactly `bits` bytes.
#pragma once

#include <cstdint>

namespace lowbit {

constexpr int64_t packed_bytes(int64_t count, int bits) { return (count * bits + 7) / 8; }

// Code number `index` of the stream. Reads at most the two bytes that hold it.
constexpr uint32_t unpack(const uint8_t* stream, int64_t index, int bits) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit & 7);
  uint32_t word = stream[bit >> 3];
  if (shift + bits > 8) word |= static_cast<uint32_t>(stream[(bit >> 3) + 1]) << 8;
  return (word >> shift) & ((1u << bits) - 1u);
}

// ORs code number `index` into the stream, which must hold zeros there.
constexpr void pack(uint8_t* stream, int64_t index, int bits, uint32_t code) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit & 7);
  const uint32_t word = (code & ((1u << bits) - 1u)) << shift;
  stream[bit >> 3] = static_cast<uint8_t>(stream[bit >> 3] | (word & 0xffu));
  if (shift + bits > 8) {
    stream[(bit >> 3) + 1] = static_cast<uint8_t>(stream[(bit >> 3) + 1] | (word >> 8));
  }
}

}  // namespace lowbit

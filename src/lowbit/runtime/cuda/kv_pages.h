// How the cache of a GPU lays out pages of few bits. The codes of a page lie as the lanes of a warp
// multiply them (mma.m16n8k16), so that a lane reads 16 bytes at a time, and a warp 512 in a row.
// Scales lie behind the codes as kv_cache.h says. Heads of other sizes than 64 and 128 have rows.
#pragma once

#include <cstdint>

namespace lowbit::cuda {

enum class CacheType : int { kF32, kF16, kE4M3, kInt8, kInt4 };

constexpr int kKvGroupDims = 64;  // of kInt4

constexpr bool is_coded(CacheType type) {
  return type != CacheType::kF32 && type != CacheType::kF16;
}
constexpr int code_bits(CacheType type) {
  return type == CacheType::kInt4  ? 4
         : type == CacheType::kF16 ? 16
         : type == CacheType::kF32 ? 32
                                   : 8;
}
// Of a row of codes of a head: a key's, or a value's.
constexpr int row_bytes(CacheType type, int dim) { return (dim * code_bits(type) + 7) / 8; }
constexpr int kv_groups(int dim) { return (dim + kKvGroupDims - 1) / kKvGroupDims; }
// Of a key's or value's scales.
constexpr int scale_bytes(CacheType type, int dim) {
  return type == CacheType::kInt4   ? 4 * kv_groups(dim)
         : type == CacheType::kInt8 ? 4
         : type == CacheType::kE4M3 ? 2
                                    : 0;
}
constexpr int page_bytes(CacheType type, int dim) {
  return 64 * (row_bytes(type, dim) + scale_bytes(type, dim));
}
// Byte, behind the codes, of the scales of a key (of kInt4: of a group of its dimensions).
constexpr int scale_place(CacheType type, int key, int group) {
  return type == CacheType::kInt4 ? (group * 64 + key) * 4
                                  : key * (type == CacheType::kInt8 ? 4 : 2);
}

constexpr bool in_fragments(int dim) { return dim == 64 || dim == 128; }

// Words of 4 bytes that a lane reads of the 16 keys of a warp, or of the values' dimensions that a
// warp sums (tiles of 8, each fourth).
constexpr int lane_words(CacheType type, int dim) { return dim * code_bits(type) / 64; }
// Of word `word` of a lane; group: which 16 keys, or whose tiles.
constexpr int word_place(CacheType type, int dim, int group, int lane, int word) {
  return ((group * (lane_words(type, dim) / 4) + word / 4) * 32 + lane) * 16 + word % 4 * 4;
}

// Where the code of dimension d of a key (which: 0) or value (1) lies.
struct KvPlace {
  int byte, shift;
};
// An operand of mma.m16n8k16 holds in a lane, of each 16 steps of the sum, elements 2j, 2j + 1 (its
// first register), 2j + 8 and 2j + 9 (its second), j = lane % 4, of column lane / 4. A sum runs
// over the dimensions of keys, and over the keys of values.
//   8 bits: a word holds the four elements of a step.
//   4 bits: nibbles i and i + 4 of a word are a register: of keys, registers 0 and 1 of a step,
//   then
//           of the next; of values, register 0 of two tiles, then register 1.
constexpr KvPlace kv_place(CacheType type, int dim, int which, int key, int d) {
  if (!in_fragments(dim)) {
    return type == CacheType::kInt4 ? KvPlace{key * row_bytes(type, dim) + d / 2, d % 2 * 4}
                                    : KvPlace{key * row_bytes(type, dim) + d, 0};
  }
  const int sum = which == 0 ? d : key, step = sum / 16;  // what a sum runs over
  const int element = sum % 16 / 8 * 2 + sum % 2, j = sum % 8 / 2;
  const int column = which == 0 ? key % 8 : d % 8, lane = column * 4 + j;
  const int steps = dim / 16, tiles = dim / 32;
  const int group = which == 0 ? key / 16 : d / 8 % 4;
  const int row = which == 0 ? key / 8 % 2 : 0, tile = d / 32;  // of two times 8 keys; of a warp
  if (type != CacheType::kInt4) {
    const int word = which == 0 ? row * steps + step : step * tiles + tile;
    return {word_place(type, dim, group, lane, word) + element, 0};
  }
  const int word = which == 0 ? (row * steps + step) / 2 : (step * tiles + tile) / 2;
  const int half = which == 0 ? step % 2 * 2 + element / 2 : tile % 2 + element / 2 * 2;
  const int nibble = half + element % 2 * 4;
  return {word_place(type, dim, group, lane, word) + nibble / 2, nibble % 2 * 4};
}
// kInt4: the dimension whose code stands in the upper half of the byte, beside that of d in the
// lower half.
constexpr int upper_partner(int dim, int which, int d) {
  return !in_fragments(dim) ? d + 1 : which == 0 ? d + 8 : d + 32;
}
// kInt4: the i-th dimension whose code stands in a lower half.
constexpr int lower_dimension(int dim, int which, int i) {
  const int run = !in_fragments(dim) ? 1 : which == 0 ? 8 : 32;
  return i / run * 2 * run + i % run;
}

}  // namespace lowbit::cuda

// Fits the two-level blocks of ggml's K-quants: 256 weights in groups, with a small integer as each
// group's scale (and minimum) and one fp16 for all scales (and one for all minimums):
//
//   x ~ d * scale[g] * code - dmin * minimum[g]
//
// ggml's quantizers fit a line to each group (line_fit.h) and round it to integers (ggml-quants.c).
// Here integers and fp16 factors are then refitted in turn until neither makes the error smaller.
#pragma once

#include <cstdint>

namespace lowbit {

inline constexpr int kKBlock = 256;
inline constexpr int kMostKGroups = 16;

struct KGrid {
  int groups;                 // of 256 / groups weights
  int code_low, code_high;    // 0 to 15, -32 to 31
  int scale_low, scale_high;  // 0 to 63, -128 to 127
  int minimum_high;           // 0: no minimums
};

struct KBlock {
  uint16_t d = 0, dmin = 0;  // fp16
  int scales[kMostKGroups] = {};
  int minimums[kMostKGroups] = {};
  int codes[kKBlock] = {};
};

// x: 256 finite weights. False if d or dmin overflowed fp16.
bool fit_k_block(const float* x, const KGrid& grid, KBlock& block);

}  // namespace lowbit

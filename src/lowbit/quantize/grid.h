// The grid of integer codes that a group of weights is rounded to: w = scale * (q - zero).
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "lowbit/tensor/scheme.h"

namespace lowbit {

struct Grid {
  float scale = 1;
  int zero = 0;  // the code of weight 0
};

// Nearest integer, halves to even, of |x| < 2^22: there 1.5 * 2^23 + x keeps no fraction. Without
// SSE4.1, nearbyint() is a call.
inline float round_to_even(float x) {
  const float shifted = x + 12582912.f;
  return shifted - 12582912.f;
}

// The code of a weight: the nearest point of the grid.
inline float code_of(float weight, const Grid& grid, float largest_code) {
  const float code = round_to_even(weight / grid.scale) + static_cast<float>(grid.zero);
  return code < 0 ? 0 : code > largest_code ? largest_code : code;
}
inline float value_of(float code, const Grid& grid) {
  return grid.scale * (code - static_cast<float>(grid.zero));
}

// Where a group is, for errors.
struct GroupPlace {
  const std::string& name;
  int64_t row = 0;
};

// `range` in units of `steps` as a scale in fp16: 1 for a range of 0, fp16's smallest for anything
// below that. Throws kInvalidArgument naming the place if fp16 cannot hold it.
float half_scale(float range, int steps, const GroupPlace& place);

// The grid that holds the smallest to the largest weight (and 0), of `bits` bits:
//   Zero::kNone  scale = max|w| / (2^(bits-1) - 1), zero = 2^(bits-1)
//   Zero::kInt   scale = (max - min) / (2^bits - 1), zero = round(-min / scale), min <= 0 <= max
// after both ends have been multiplied by `shrink`. The scale is rounded to fp16: a group of zeros
// gets scale 1, a scale below fp16's smallest becomes that. Throws kInvalidArgument naming the
// place if fp16 cannot hold it.
Grid group_grid(std::span<const float> group, int bits, Zero zero, const GroupPlace& place,
                float shrink = 1.f);

}  // namespace lowbit

// The grid of integer codes that a group of weights is rounded to: w = scale * (q - zero).
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "lowbit/quantize/group_math.h"
#include "lowbit/tensor/scheme.h"

namespace lowbit {

// Where a group is, for errors.
struct GroupPlace {
  const std::string& name;
  int64_t row = 0;
};

// `range` in units of `steps` as a scale in fp16: 1 for a range of 0, fp16's smallest for anything
// below that. Throws kInvalidArgument naming the place if fp16 cannot hold it.
float half_scale(float range, int steps, const GroupPlace& place);

GroupRange range_of(std::span<const float> group);

// Throws kInvalidArgument naming the place if the scale is infinite.
void check_scale(const Grid& grid, const GroupPlace& place);

// The grid that holds the smallest to the largest weight (and 0), of `bits` bits:
//   Zero::kNone  scale = max|w| / (2^(bits-1) - 1), zero = 2^(bits-1)
//   Zero::kInt   scale = (max - min) / (2^bits - 1), zero = round(-min / scale), min <= 0 <= max
// after both ends have been multiplied by `shrink`. The scale is rounded to fp16: a group of zeros
// gets scale 1, a scale below fp16's smallest becomes that. Throws kInvalidArgument naming the
// place if fp16 cannot hold it.
Grid group_grid(std::span<const float> group, int bits, Zero zero, const GroupPlace& place,
                float shrink = 1.f);

}  // namespace lowbit

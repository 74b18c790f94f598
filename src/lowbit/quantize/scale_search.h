// Scales of integer groups for which the squared rounding error is least, columns weighted by
// `importance`, such as their mean squared input.
#pragma once

#include <cstdint>
#include <span>

#include "lowbit/quantize/grid.h"

namespace lowbit {

// The weighted squared error of w rounded to scale * n, low <= n <= high.
float rounding_error(const float* w, const float* importance, int64_t size, float scale, float low,
                     float high);

// Among about 100 symmetric scales: the weight of largest magnitude lies at 0.25 to 1.75 times
// -2^(b-1) steps. The scale is negative where that weight is positive.
float best_scale(const float* w, const float* importance, int64_t size, int bits);

// The grid with that scale, or, with Zero::kInt, the one of both ends shrunk together by up to a
// half. Throws as group_grid().
Grid searched_grid(std::span<const float> group, std::span<const float> importance, int bits,
                   Zero zero, const GroupPlace& place);

}  // namespace lowbit

// One group's step of HQQ, which host and GPU share. No product may be fused with an addition.
#pragma once

#include "lowbit/quantize/group_math.h"

namespace lowbit {

constexpr int kHqqIterations = 20;
constexpr float kHqqNorm = 0.7f;
constexpr float kHqqBeta = 10.f;
constexpr float kHqqLargestScale = 2e4f;  // of codes per unit of weight: fp16 holds its inverse

struct HqqGrid {
  float scale = 1, zero = 0;  // code = weight * scale + zero
};

LOWBIT_ANYWHERE inline HqqGrid hqq_start(float low, float high, float top, bool round_zero) {
  const float range = high - low;
  const float scale = range <= 1e-4f ? 1.f : top / range;
  HqqGrid grid;
  grid.scale = scale < kHqqLargestScale ? scale : kHqqLargestScale;
  const float zero = -low * grid.scale;
  grid.zero = round_zero ? round_to_even(zero) : zero;
  return grid;
}

// Where the proximal operator of the norm begins: |e|^(2 - p) = 1 / beta.
inline float hqq_threshold() { return std::pow(1.f / kHqqBeta, 1.f / (2.f - kHqqNorm)); }

// The proximal operator of the norm. Below the threshold it is 0, which spares the power for almost
// all weights.
LOWBIT_ANYWHERE inline float hqq_shrink(float error, float threshold) {
  const float magnitude = std::fabs(error);
  if (magnitude < threshold) return 0.f;
  const float kept = magnitude - std::pow(magnitude, kHqqNorm - 1.f) / kHqqBeta;
  return std::copysign(kept > 0.f ? kept : 0.f, error);
}

struct HqqSums {
  float magnitude = 0;  // of the errors
  float zeros = 0;      // what each weight would have the zero be
};

// Adds a weight to its group's sums. inverse: 1 / grid.scale.
LOWBIT_ANYWHERE inline void hqq_add(float weight, const HqqGrid& grid, float inverse, float top,
                                    float threshold, HqqSums& sums) {
  const float code = clamped(round_to_even(weight * grid.scale + grid.zero), 0.f, top);
  const float difference = weight - (code - grid.zero) * inverse;
  sums.magnitude += std::fabs(difference);
  sums.zeros += code - (weight - hqq_shrink(difference, threshold)) * grid.scale;
}

// A group's line w = scale * (code - zero), as fp16 holds it.
struct HqqLine {
  float scale = 0, zero = 0;

  LOWBIT_ANYWHERE bool usable() const {
    return scale > 0 && scale < INFINITY && zero > -INFINITY && zero < INFINITY;
  }
  LOWBIT_ANYWHERE float code(float weight, float top) const {
    return clamped(round_to_even(weight / scale + zero), 0.f, top);
  }
};

template <typename Values>
LOWBIT_ANYWHERE float hqq_squared_error(const Values& values, int64_t size, const HqqLine& line,
                                        float top) {
  float error = 0;
  for (int64_t k = 0; k < size; ++k) {
    const float difference = values[k] - line.scale * (line.code(values[k], top) - line.zero);
    error += difference * difference;
  }
  return error;
}

// The line of least squares through the codes that `line` gives; scale 0 if they are all equal.
template <typename Values>
LOWBIT_ANYWHERE HqqLine hqq_fitted(const Values& values, int64_t size, const HqqLine& line,
                                   float top) {
  float codes = 0, sum = 0;
  for (int64_t k = 0; k < size; ++k) {
    codes += line.code(values[k], top);
    sum += values[k];
  }
  const float count = static_cast<float>(size);
  const float mean_code = codes / count, mean = sum / count;
  float products = 0, squares = 0;
  for (int64_t k = 0; k < size; ++k) {
    const float code = line.code(values[k], top) - mean_code;
    products += code * (values[k] - mean);
    squares += code * code;
  }
  if (!(products > 0)) return {};
  const float scale = products / squares;
  return {half_rounded(scale), half_rounded(mean_code - mean / scale)};
}

// The best of lines fitted from the solution, and from narrower ones about its middle: that of
// least squares.
template <typename Values>
LOWBIT_ANYWHERE HqqGrid hqq_refined(const Values& values, int64_t size, HqqGrid grid, float top) {
  constexpr int kFits = 3;  // from each start
  constexpr float kWidths[] = {1.f, 0.95f, 0.9f, 0.85f, 0.8f};
  const HqqLine start{half_rounded(1.f / grid.scale), half_rounded(grid.zero)};
  if (!start.usable()) return grid;
  float least = hqq_squared_error(values, size, start, top);
  for (const float width : kWidths) {
    const float middle = top / 2;
    HqqLine line{half_rounded(start.scale * width),
                 half_rounded(middle - (middle - start.zero) / width)};
    for (int round = 0; round < kFits && line.usable(); ++round) {
      line = hqq_fitted(values, size, line, top);
      if (!line.usable()) break;
      const float error = hqq_squared_error(values, size, line, top);
      if (error < least) {
        least = error;
        grid = {1.f / line.scale, line.zero};
      }
    }
  }
  return grid;
}

}  // namespace lowbit

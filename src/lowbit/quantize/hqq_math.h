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

}  // namespace lowbit

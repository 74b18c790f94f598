// Grids of integer groups, w = scale * (q - zero): the arithmetic that host and GPU share, so that
// both choose the same to the bit. No product here may be fused with an addition.
#pragma once

#include <cmath>
#include <cstdint>

#include "lowbit/tensor/dtype.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define LOWBIT_ANYWHERE __host__ __device__
#else
#define LOWBIT_ANYWHERE
#endif

namespace lowbit {

struct Grid {
  float scale = 1;
  int zero = 0;  // the code of weight 0
};

// Nearest integer, halves to even, of |x| < 2^22: there 1.5 * 2^23 + x keeps no fraction. Without
// SSE4.1, nearbyint() is a call.
LOWBIT_ANYWHERE inline float round_to_even(float x) {
  const float shifted = x + 12582912.f;
  return shifted - 12582912.f;
}

LOWBIT_ANYWHERE inline float clamped(float x, float low, float high) {
  const float above = x < low ? low : x;
  return above > high ? high : above;
}

// The code of a weight: the nearest point of the grid.
LOWBIT_ANYWHERE inline float code_of(float weight, const Grid& grid, float largest_code) {
  const float code = round_to_even(weight / grid.scale) + static_cast<float>(grid.zero);
  return code < 0 ? 0 : code > largest_code ? largest_code : code;
}
LOWBIT_ANYWHERE inline float value_of(float code, const Grid& grid) {
  return grid.scale * (code - static_cast<float>(grid.zero));
}

// As fp16 holds it.
LOWBIT_ANYWHERE inline float half_rounded(float x) {
#ifdef __CUDA_ARCH__
  return __half2float(__float2half_rn(x));
#else
  return f16_to_f32(f32_to_f16(x));
#endif
}

constexpr float kSmallestScale = 0x1p-24f;  // of fp16

// `range` in units of `steps` as a scale in fp16: 1 for a range of 0, fp16's smallest for anything
// below that, infinity for what fp16 cannot hold.
LOWBIT_ANYWHERE inline float scale_of_range(float range, int steps) {
  if (range == 0) return 1.f;
  const float scale = half_rounded(range / static_cast<float>(steps));
  return scale == 0 ? kSmallestScale : scale;
}

// As fp16 holds it, and never 0.
LOWBIT_ANYWHERE inline float stored_scale(float scale) {
  const float half = half_rounded(scale);
  return half == 0 ? std::copysign(kSmallestScale, scale) : half;
}

// The smallest and the largest weight of a group and 0; and the first of the largest magnitude.
struct GroupRange {
  float low = 0, high = 0, extreme = 0;

  LOWBIT_ANYWHERE void add(float weight) {
    low = weight < low ? weight : low;
    high = high < weight ? weight : high;
    if (std::fabs(weight) > std::fabs(extreme)) extreme = weight;
  }
};

// What a search tries: kNone one grid; kError the about 200 of rtn-search; kWeighted the fewer of
// methods that weigh columns.
enum class GridSearch { kNone, kError, kWeighted };

struct GridRequest {
  int bits = 4;
  bool symmetric = true;
  GridSearch search = GridSearch::kNone;
  float range = 1;  // that kNone covers, over what would hold every weight
};

// The grid that holds all of the range, multiplied by `shrink`. Its scale may be infinite.
LOWBIT_ANYWHERE inline Grid grid_of_range(const GroupRange& range, int bits, bool symmetric,
                                          float shrink) {
  const int half = 1 << (bits - 1), steps = (1 << bits) - 1;
  if (symmetric) return {scale_of_range(std::fabs(range.extreme) * shrink, half - 1), half};
  const float low = range.low * shrink, high = range.high * shrink;
  const float scale = scale_of_range(high - low, steps);
  const float zero = clamped(round_to_even(-low / scale), 0.f, static_cast<float>(steps));
  return {scale, static_cast<int>(zero)};
}

// How many grids the search tries for such a group.
LOWBIT_ANYWHERE inline int candidate_count(const GroupRange& range, const GridRequest& request) {
  if (request.search == GridSearch::kNone || (request.symmetric && range.extreme == 0)) return 1;
  const bool weighted = request.search == GridSearch::kWeighted;
  if (!request.symmetric) return weighted ? 41 : 201;
  return weighted ? 102 : request.bits == 2 ? 182 : 202;
}

// Grid number i of the search: the first of those with the least error is taken. Symmetric: the
// weight of largest magnitude lies at 0.25 to 1.75 times -2^(b-1) steps, so that a scale may be
// negative. Asymmetric: both ends of the range shrink together, down to half. A grid that fp16
// cannot hold has a scale, or an error, that is infinite or NaN.
LOWBIT_ANYWHERE inline Grid candidate(const GroupRange& range, const GridRequest& request, int i) {
  const int bits = request.bits;
  const bool weighted = request.search == GridSearch::kWeighted;
  if (request.search == GridSearch::kNone) {
    return grid_of_range(range, bits, request.symmetric, request.range);
  }
  if (!request.symmetric) {
    const float shrink =
        weighted ? 1.f - 0.5f * static_cast<float>(i) / 40 : 1 - 0.0025f * static_cast<float>(i);
    return grid_of_range(range, bits, false, shrink);
  }
  const int half = 1 << (bits - 1);
  const auto middle = static_cast<float>(half);
  if (weighted) {
    if (range.extreme == 0) return {1.f, half};
    if (i == 0) return {stored_scale(-range.extreme / middle), half};
    const float step = (bits == 2 ? 0.45f : 0.75f) * middle / 50;
    return {stored_scale(-range.extreme / (middle - step * static_cast<float>(i - 51))), half};
  }
  if (i == 0) return grid_of_range(range, bits, true, 1.f);
  const float step = bits == 2 ? 0.01f : 2 * 0.75f * middle / 200;
  const int count = bits == 2 ? 90 : 100;
  const float scale =
      half_rounded(-range.extreme / (middle - step * static_cast<float>(i - 1 - count)));
  return {scale == 0 ? INFINITY : scale, half};
}

}  // namespace lowbit

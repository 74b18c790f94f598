#include "lowbit/quantize/scale_search.h"

#include <cmath>
#include <limits>

#include "lowbit/base/vector_math.h"

namespace lowbit {

float rounding_error(const float* w, const float* importance, int64_t size, float scale, float low,
                     float high) {
  const float inverse = 1.f / scale;
  return sum_of(size, [&](int64_t k) {
    const float step = clamped(round_to_even(w[k] * inverse), low, high);
    const float difference = step * scale - w[k];
    return importance[k] * difference * difference;
  });
}

namespace {

Grid best_grid(const float* w, const float* importance, int64_t size, const GridRequest& request) {
  const GroupRange range = range_of({w, static_cast<size_t>(size)});
  const auto levels = static_cast<float>((1 << request.bits) - 1);
  Grid best = candidate(range, request, 0);
  if (!std::isfinite(best.scale)) return best;
  float least = std::numeric_limits<float>::infinity();
  const int count = candidate_count(range, request);
  for (int i = 0; i < count; ++i) {
    const Grid grid = candidate(range, request, i);
    const auto offset = static_cast<float>(grid.zero);
    const float error = rounding_error(w, importance, size, grid.scale, -offset, levels - offset);
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

}  // namespace

float best_scale(const float* w, const float* importance, int64_t size, int bits) {
  return best_grid(w, importance, size, {bits, true, GridSearch::kWeighted}).scale;
}

Grid searched_grid(std::span<const float> group, std::span<const float> importance, int bits,
                   Zero zero, const GroupPlace& place) {
  const Grid grid = best_grid(group.data(), importance.data(), static_cast<int64_t>(group.size()),
                              {bits, zero != Zero::kInt, GridSearch::kWeighted});
  check_scale(grid, place);
  return grid;
}

}  // namespace lowbit

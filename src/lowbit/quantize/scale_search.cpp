#include "lowbit/quantize/scale_search.h"

#include <cmath>
#include <limits>

#include "lowbit/base/check.h"
#include "lowbit/base/vector_math.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

float stored_scale(float scale) {
  constexpr float kSmallestScale = 0x1p-24f;  // of fp16
  const float half = f16_to_f32(f32_to_f16(scale));
  return half == 0 ? std::copysign(kSmallestScale, scale) : half;
}

float rounding_error(const float* w, const float* importance, int64_t size, float scale, float low,
                     float high) {
  const float inverse = 1.f / scale;
  return sum_of(size, [&](int64_t k) {
    const float step = clamped(round_to_even(w[k] * inverse), low, high);
    const float difference = step * scale - w[k];
    return importance[k] * difference * difference;
  });
}

float best_scale(const float* w, const float* importance, int64_t size, int bits) {
  float extreme = 0;
  for (int64_t k = 0; k < size; ++k) {
    if (std::fabs(w[k]) > std::fabs(extreme)) extreme = w[k];
  }
  if (extreme == 0) return 1.f;
  const float half = static_cast<float>(1 << (bits - 1));
  constexpr int kSteps = 50;
  const float step = (bits == 2 ? 0.45f : 0.75f) * half / kSteps;
  float best = stored_scale(-extreme / half);
  float least = rounding_error(w, importance, size, best, -half, half - 1);
  for (int i = -kSteps; i <= kSteps; ++i) {
    const float scale = stored_scale(-extreme / (half - step * static_cast<float>(i)));
    const float error = rounding_error(w, importance, size, scale, -half, half - 1);
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

Grid searched_grid(std::span<const float> group, std::span<const float> importance, int bits,
                   Zero zero, const GroupPlace& place) {
  const auto size = static_cast<int64_t>(group.size());
  if (zero != Zero::kInt) {
    const float scale = best_scale(group.data(), importance.data(), size, bits);
    LOWBIT_CHECK(std::isfinite(scale), place.name, ": row ", place.row,
                 " needs a scale that fp16 cannot hold; keep this module in 16 bits with --skip");
    return {scale, 1 << (bits - 1)};
  }
  constexpr int kSteps = 40;
  const auto levels = static_cast<float>((1 << bits) - 1);
  Grid best = group_grid(group, bits, zero, place);
  float least = std::numeric_limits<float>::infinity();
  for (int i = 0; i <= kSteps; ++i) {
    const Grid grid =
        group_grid(group, bits, zero, place, 1.f - 0.5f * static_cast<float>(i) / kSteps);
    const auto offset = static_cast<float>(grid.zero);
    const float error =
        rounding_error(group.data(), importance.data(), size, grid.scale, -offset, levels - offset);
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

}  // namespace lowbit

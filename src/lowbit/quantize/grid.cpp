#include "lowbit/quantize/grid.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

float half_scale(float range, int steps, const GroupPlace& place) {
  if (range == 0) return 1.f;
  const float scale = f16_to_f32(f32_to_f16(range / static_cast<float>(steps)));
  LOWBIT_CHECK(std::isfinite(scale), place.name, ": row ", place.row, " needs a scale of ",
               range / static_cast<float>(steps),
               ", which fp16 cannot hold; keep this module in 16 bits with --skip");
  return scale == 0 ? 0x1p-24f : scale;
}

namespace {

Grid symmetric_grid(std::span<const float> group, int bits, const GroupPlace& place, float shrink) {
  float largest = 0;
  for (const float value : group) largest = std::max(largest, std::fabs(value));
  const int half = 1 << (bits - 1);
  return {half_scale(largest * shrink, half - 1, place), half};
}

Grid asymmetric_grid(std::span<const float> group, int bits, const GroupPlace& place,
                     float shrink) {
  float low = 0, high = 0;
  for (const float value : group) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  low *= shrink;
  high *= shrink;
  const int steps = (1 << bits) - 1;
  const float scale = half_scale(high - low, steps, place);
  const float zero = std::clamp(round_to_even(-low / scale), 0.f, static_cast<float>(steps));
  return {scale, static_cast<int>(zero)};
}

}  // namespace

Grid group_grid(std::span<const float> group, int bits, Zero zero, const GroupPlace& place,
                float shrink) {
  return zero == Zero::kInt ? asymmetric_grid(group, bits, place, shrink)
                            : symmetric_grid(group, bits, place, shrink);
}

}  // namespace lowbit

#include "lowbit/quantize/grid.h"

#include <cmath>

#include "lowbit/base/check.h"

namespace lowbit {

float half_scale(float range, int steps, const GroupPlace& place) {
  const float scale = scale_of_range(range, steps);
  LOWBIT_CHECK(std::isfinite(scale), place.name, ": row ", place.row, " needs a scale of ",
               range / static_cast<float>(steps),
               ", which fp16 cannot hold; keep this module in 16 bits with --skip");
  return scale;
}

GroupRange range_of(std::span<const float> group) {
  GroupRange range;
  for (const float value : group) range.add(value);
  return range;
}

void check_scale(const Grid& grid, const GroupPlace& place) {
  LOWBIT_CHECK(std::isfinite(grid.scale), place.name, ": row ", place.row,
               " needs a scale that fp16 cannot hold; keep this module in 16 bits with --skip");
}

Grid group_grid(std::span<const float> group, int bits, Zero zero, const GroupPlace& place,
                float shrink) {
  const Grid grid = grid_of_range(range_of(group), bits, zero != Zero::kInt, shrink);
  check_scale(grid, place);
  return grid;
}

}  // namespace lowbit

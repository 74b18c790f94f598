#include "lowbit/quantize/rtn.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

// Nearest integer, halves to even, of |x| < 2^22: there 1.5 * 2^23 + x keeps no fraction. Without
// SSE4.1, nearbyint() is a call.
float round_to_even(float x) {
  const float shifted = x + 12582912.f;
  return shifted - 12582912.f;
}

struct Grid {
  float scale;
  int zero;  // the code of weight 0
};

// `range` in units of `steps` as an fp16 scale.
float half_scale(float range, int steps, const LinearJob& job, int64_t row) {
  if (range == 0) return 1.f;
  const float scale = f16_to_f32(f32_to_f16(range / static_cast<float>(steps)));
  LOWBIT_CHECK(std::isfinite(scale), job.name, ": row ", row, " needs a scale of ",
               range / static_cast<float>(steps),
               ", which fp16 cannot hold; keep this module in 16 bits with --skip");
  return scale == 0 ? 0x1p-24f : scale;
}

Grid symmetric_grid(std::span<const float> group, int bits, const LinearJob& job, int64_t row) {
  float largest = 0;
  for (const float value : group) largest = std::max(largest, std::fabs(value));
  const int half = 1 << (bits - 1);
  return {half_scale(largest, half - 1, job, row), half};
}

// `shrink` moves both ends of the range towards 0.
Grid asymmetric_grid(std::span<const float> group, int bits, const LinearJob& job, int64_t row,
                     float shrink = 1.f) {
  float low = 0, high = 0;
  for (const float value : group) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  low *= shrink;
  high *= shrink;
  const int steps = (1 << bits) - 1;
  const float scale = half_scale(high - low, steps, job, row);
  const float zero = std::clamp(round_to_even(-low / scale), 0.f, static_cast<float>(steps));
  return {scale, static_cast<int>(zero)};
}

float squared_error(std::span<const float> group, const Grid& grid, int bits) {
  const float zero = static_cast<float>(grid.zero);
  const float low = -zero, high = static_cast<float>((1 << bits) - 1) - zero;
  const float inverse = 1.f / grid.scale;
  float error = 0;
  for (const float value : group) {
    const float step = std::min(std::max(round_to_even(value * inverse), low), high);
    const float difference = step * grid.scale - value;
    error += difference * difference;
  }
  return error;
}

Grid best_of(std::span<const float> group, int bits, const std::vector<Grid>& grids) {
  Grid best = grids.front();
  float least = squared_error(group, best, bits);
  for (const Grid& grid : grids) {
    const float error = squared_error(group, grid, bits);
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

Grid searched_symmetric(std::span<const float> group, int bits, const LinearJob& job, int64_t row) {
  float extreme = 0;  // the weight of largest magnitude
  for (const float value : group) {
    if (std::fabs(value) > std::fabs(extreme)) extreme = value;
  }
  std::vector<Grid> grids = {symmetric_grid(group, bits, job, row)};
  if (extreme == 0) return grids[0];
  const int half = 1 << (bits - 1);
  const float step = bits == 2 ? 0.01f : 2 * 0.75f * static_cast<float>(half) / 200;
  const int count = bits == 2 ? 90 : 100;
  for (int i = -count; i <= count; ++i) {
    const float steps = static_cast<float>(half) - step * static_cast<float>(i);
    const float scale = f16_to_f32(f32_to_f16(-extreme / steps));
    if (std::isfinite(scale) && scale != 0) grids.push_back({scale, half});
  }
  return best_of(group, bits, grids);
}

Grid searched_asymmetric(std::span<const float> group, int bits, const LinearJob& job,
                         int64_t row) {
  std::vector<Grid> grids;
  for (int i = 0; i <= 200; ++i) {
    grids.push_back(asymmetric_grid(group, bits, job, row, 1 - 0.0025f * static_cast<float>(i)));
  }
  return best_of(group, bits, grids);
}

void encode(std::span<const float> group, const Grid& grid, int bits, uint8_t* codes,
            int64_t first) {
  const float largest = static_cast<float>((1 << bits) - 1);
  const float zero = static_cast<float>(grid.zero);
  for (size_t k = 0; k < group.size(); ++k) {
    const float code = std::clamp(round_to_even(group[k] / grid.scale) + zero, 0.f, largest);
    pack(codes, first + static_cast<int64_t>(k), bits, static_cast<uint32_t>(code));
  }
}

void check_scheme(const LinearJob& job, const QuantScheme& scheme) {
  LOWBIT_CHECK(scheme.code == Code::kInt && scheme.bits >= 2 && scheme.bits <= 8 &&
                   scheme.group_rows == 1 && scheme.zero != Zero::kOffset,
               job.name, ": rtn makes integer codes of 2 to 8 bits, not ", name_of(scheme));
  LOWBIT_CHECK(
      job.rows > 0 && job.cols > 0 && job.weight.size() == static_cast<size_t>(job.rows) * job.cols,
      job.name, ": ", job.weight.size(), " weights for ", job.rows, " x ", job.cols);
  LOWBIT_CHECK(scheme.group_size > 0 && job.cols % scheme.group_size == 0, job.name, ": groups of ",
               scheme.group_size, " do not divide ", job.cols, " columns");
}

}  // namespace

QTensor Rtn::quantize(const LinearJob& job, const QuantScheme& scheme) const {
  check_scheme(job, scheme);
  QTensor weight;
  weight.scheme = scheme;
  weight.rows = job.rows;
  weight.cols = job.cols;
  const int64_t groups = weight.groups();
  std::vector<uint8_t> codes(static_cast<size_t>(job.rows * weight.row_bytes()));
  weight.scales.resize(static_cast<size_t>(job.rows * groups));
  if (scheme.zero == Zero::kInt) weight.zeros.resize(weight.scales.size());

  const auto make_grid = [&](std::span<const float> group, int64_t row) {
    const bool asymmetric = scheme.zero == Zero::kInt;
    if (search_ == Search::kScale) {
      return asymmetric ? searched_asymmetric(group, scheme.bits, job, row)
                        : searched_symmetric(group, scheme.bits, job, row);
    }
    return asymmetric ? asymmetric_grid(group, scheme.bits, job, row)
                      : symmetric_grid(group, scheme.bits, job, row);
  };
  const auto quantize_row = [&](int64_t row, int) {
    const std::span<const float> values = job.weight.subspan(row * job.cols, job.cols);
    check_finite(job.name, values, row);
    uint8_t* row_codes = codes.data() + row * weight.row_bytes();
    for (int64_t g = 0; g < groups; ++g) {
      const auto group = values.subspan(g * scheme.group_size, scheme.group_size);
      const Grid grid = make_grid(group, row);
      encode(group, grid, scheme.bits, row_codes, g * scheme.group_size);
      weight.scales[row * groups + g] = grid.scale;
      if (scheme.zero == Zero::kInt) {
        weight.zeros[row * groups + g] = static_cast<uint8_t>(grid.zero);
      }
    }
  };
  if (job.pool != nullptr) {
    job.pool->parallel_for(job.rows, quantize_row);
  } else {
    for (int64_t row = 0; row < job.rows; ++row) quantize_row(row, 0);
  }
  weight.codes = Bytes::own(std::move(codes));
  return weight;
}

}  // namespace lowbit

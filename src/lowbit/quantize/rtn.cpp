#include "lowbit/quantize/rtn.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/quantize/grid.h"
#include "lowbit/quantize/quantize_device.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

float squared_error(std::span<const float> group, const Grid& grid, int bits) {
  const float zero = static_cast<float>(grid.zero);
  const float low = -zero, high = static_cast<float>((1 << bits) - 1) - zero;
  const float inverse = 1.f / grid.scale;
  float error = 0;
  for (const float value : group) {
    const float step = clamped(round_to_even(value * inverse), low, high);
    const float difference = step * grid.scale - value;
    error += difference * difference;
  }
  return error;
}

Grid best_grid(std::span<const float> group, const GridRequest& request, const GroupPlace& place) {
  const GroupRange range = range_of(group);
  Grid best = candidate(range, request, 0);
  check_scale(best, place);
  const int count = candidate_count(range, request);
  if (count == 1) return best;
  float least = squared_error(group, best, request.bits);
  for (int i = 1; i < count; ++i) {
    const Grid grid = candidate(range, request, i);
    const float error = squared_error(group, grid, request.bits);
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

void encode(std::span<const float> group, const Grid& grid, int bits, uint8_t* codes,
            int64_t first) {
  const float largest = static_cast<float>((1 << bits) - 1);
  for (size_t k = 0; k < group.size(); ++k) {
    pack(codes, first + static_cast<int64_t>(k), bits,
         static_cast<uint32_t>(code_of(group[k], grid, largest)));
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
  if (job.device != nullptr) return job.device->rtn(job, scheme, search_ == Search::kScale);
  check_scheme(job, scheme);
  QTensor weight;
  weight.scheme = scheme;
  weight.rows = job.rows;
  weight.cols = job.cols;
  const int64_t groups = weight.groups();
  std::vector<uint8_t> codes(static_cast<size_t>(job.rows * weight.row_bytes()));
  weight.scales.resize(static_cast<size_t>(job.rows * groups));
  if (scheme.zero == Zero::kInt) weight.zeros.resize(weight.scales.size());

  const GridRequest request{scheme.bits, scheme.zero != Zero::kInt,
                            search_ == Search::kScale ? GridSearch::kError : GridSearch::kNone};
  const auto quantize_row = [&](int64_t row, int) {
    const std::span<const float> values = job.weight.subspan(row * job.cols, job.cols);
    check_finite(job.name, values, row);
    uint8_t* row_codes = codes.data() + row * weight.row_bytes();
    for (int64_t g = 0; g < groups; ++g) {
      const auto group = values.subspan(g * scheme.group_size, scheme.group_size);
      const Grid grid = best_grid(group, request, {job.name, row});
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

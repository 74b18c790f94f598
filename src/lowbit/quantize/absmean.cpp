#include "lowbit/quantize/absmean.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "lowbit/base/check.h"
#include "lowbit/quantize/grid.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

void check_job(const LinearJob& job, const QuantScheme& scheme, int bits, Zero zero) {
  LOWBIT_CHECK(scheme.code == Code::kInt && scheme.bits == bits && scheme.zero == zero, job.name,
               ": cannot make ", name_of(scheme), " of ", bits, "-bit codes");
  LOWBIT_CHECK(
      job.rows > 0 && job.cols > 0 && job.weight.size() == static_cast<size_t>(job.rows) * job.cols,
      job.name, ": ", job.weight.size(), " weights for ", job.rows, " x ", job.cols);
  LOWBIT_CHECK(scheme.group_size > 0 && job.cols % scheme.group_size == 0, job.name, ": groups of ",
               scheme.group_size, " do not divide ", job.cols, " columns");
}

void for_rows(const LinearJob& job, const std::function<void(int64_t, int)>& body) {
  if (job.pool != nullptr) return job.pool->parallel_for(job.rows, body);
  for (int64_t row = 0; row < job.rows; ++row) body(row, 0);
}

// A weight of this scheme without codes; its scales are mean magnitudes.
QTensor with_means(const LinearJob& job, const QuantScheme& scheme) {
  QTensor weight;
  weight.scheme = scheme;
  weight.rows = job.rows;
  weight.cols = job.cols;
  const int64_t groups = weight.groups();
  std::vector<double> sums(static_cast<size_t>(job.rows * groups));
  for_rows(job, [&](int64_t row, int) {
    const std::span<const float> values = job.weight.subspan(row * job.cols, job.cols);
    check_finite(job.name, values, row);
    for (int64_t k = 0; k < job.cols; ++k) {
      sums[row * groups + k / scheme.group_size] += std::fabs(values[k]);
    }
  });
  std::vector<double> totals(static_cast<size_t>(weight.scale_rows() * groups));
  for (int64_t row = 0; row < job.rows; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      totals[row / scheme.group_rows * groups + g] += sums[row * groups + g];
    }
  }
  for (size_t i = 0; i < totals.size(); ++i) {
    const int64_t first = static_cast<int64_t>(i) / groups * scheme.group_rows;
    const int64_t rows = std::min<int64_t>(scheme.group_rows, job.rows - first);
    const double mean = totals[i] / static_cast<double>(rows * scheme.group_size);
    weight.scales.push_back(f16_to_f32(f32_to_f16(static_cast<float>(mean))));
    LOWBIT_CHECK(std::isfinite(weight.scales.back()), job.name, ": row ", first,
                 " needs a scale of ", mean,
                 ", which fp16 cannot hold; keep this module in 16 bits with --skip");
  }
  return weight;
}

// code_of(weight, its group's mean magnitude)
template <typename CodeOf>
void fill_codes(const LinearJob& job, QTensor& weight, const CodeOf& code_of) {
  std::vector<uint8_t> codes(static_cast<size_t>(job.rows * weight.row_bytes()));
  const QuantScheme& scheme = weight.scheme;
  for_rows(job, [&](int64_t row, int) {
    const float* values = job.weight.data() + row * job.cols;
    const float* scales = weight.scales.data() + row / scheme.group_rows * weight.groups();
    uint8_t* row_codes = codes.data() + row * weight.row_bytes();
    for (int64_t k = 0; k < job.cols; ++k) {
      pack(row_codes, k, scheme.bits, code_of(values[k], scales[k / scheme.group_size]));
    }
  });
  weight.codes = Bytes::own(std::move(codes));
}

}  // namespace

QTensor Ternary::quantize(const LinearJob& job, const QuantScheme& scheme) const {
  check_job(job, scheme, 2, Zero::kNone);
  QTensor weight = with_means(job, scheme);
  fill_codes(job, weight, [](float value, float scale) {
    const float digit = std::clamp(scale > 0 ? value / scale : 0.f, -1.f, 1.f);
    return static_cast<uint32_t>(2 + static_cast<int>(round_to_even(digit)));
  });
  return weight;
}

QTensor Int1::quantize(const LinearJob& job, const QuantScheme& scheme) const {
  check_job(job, scheme, 1, Zero::kOffset);
  QTensor weight = with_means(job, scheme);
  fill_codes(job, weight, [](float value, float) { return value >= 0 ? 1u : 0u; });
  for (float& scale : weight.scales) {
    weight.offsets.push_back(-scale);
    scale *= 2;
  }
  return weight;
}

}  // namespace lowbit

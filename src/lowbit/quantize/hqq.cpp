#include "lowbit/quantize/hqq.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/quantize/hqq_math.h"
#include "lowbit/quantize/quantize_device.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

class Solver {
 public:
  Solver(const LinearJob& job, const QuantScheme& scheme)
      : job_(job),
        size_(scheme.group_size),
        groups_(job.cols / scheme.group_size),
        top_(static_cast<float>((1 << scheme.bits) - 1)),
        scales_(static_cast<size_t>(job.rows * groups_)),
        zeros_(scales_.size()),
        errors_(static_cast<size_t>(job.rows)) {}

  void solve(bool round_zero) {
    for_each_row([&](int64_t row) { start_row(row, round_zero); });
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < kHqqIterations; ++i) {
      for_each_row([&](int64_t row) { step_row(row); });
      const double error = std::accumulate(errors_.begin(), errors_.end(), 0.0);
      if (!(error < best)) break;
      best = error;
    }
    for_each_row([&](int64_t row) { refine_row(row); });
  }

  QTensor encode(const QuantScheme& scheme) const {
    QTensor weight;
    weight.scheme = scheme;
    weight.rows = job_.rows;
    weight.cols = job_.cols;
    weight.scales.resize(scales_.size());
    weight.offsets.resize(scales_.size());
    std::vector<uint8_t> codes(static_cast<size_t>(job_.rows * weight.row_bytes()));
    for_each_row([&](int64_t row) {
      for (int64_t g = 0; g < groups_; ++g) {
        const int64_t at = row * groups_ + g;
        const float scale = f16_to_f32(f32_to_f16(1.f / scales_[at]));
        const float zero = f16_to_f32(f32_to_f16(zeros_[at]));
        LOWBIT_CHECK(std::isfinite(scale) && std::isfinite(zero), job_.name, ": row ", row,
                     " needs a zero of ", zeros_[at],
                     ", which fp16 cannot hold; keep this module in 16 bits with --skip");
        weight.scales[at] = scale;
        weight.offsets[at] = -scale * zero;
        const float inverse = scale > 0 ? 1.f / scale : 0.f;
        for (int64_t k = 0; k < size_; ++k) {
          const float code =
              std::clamp(round_to_even(group(row, g)[k] * inverse + zero), 0.f, top_);
          pack(codes.data() + row * weight.row_bytes(), g * size_ + k, scheme.bits,
               static_cast<uint32_t>(code));
        }
      }
    });
    weight.codes = Bytes::own(std::move(codes));
    return weight;
  }

 private:
  template <typename Work>
  void for_each_row(Work work) const {
    if (job_.pool != nullptr) {
      job_.pool->parallel_for(job_.rows, [&](int64_t row, int) { work(row); });
    } else {
      for (int64_t row = 0; row < job_.rows; ++row) work(row);
    }
  }

  const float* group(int64_t row, int64_t g) const {
    return job_.weight.data() + row * job_.cols + g * size_;
  }

  void start_row(int64_t row, bool round_zero) {
    check_finite(job_.name, job_.weight.subspan(row * job_.cols, job_.cols), row);
    for (int64_t g = 0; g < groups_; ++g) {
      const auto [low, high] = std::minmax_element(group(row, g), group(row, g) + size_);
      const HqqGrid grid = hqq_start(*low, *high, top_, round_zero);
      scales_[row * groups_ + g] = grid.scale;
      zeros_[row * groups_ + g] = grid.zero;
    }
  }

  void step_row(int64_t row) {
    double error = 0;
    for (int64_t g = 0; g < groups_; ++g) {
      const float* values = group(row, g);
      float& zero = zeros_[row * groups_ + g];
      const HqqGrid grid{scales_[row * groups_ + g], zero};
      const float inverse = 1.f / grid.scale;
      HqqSums sums;
      for (int64_t k = 0; k < size_; ++k) {
        hqq_add(values[k], grid, inverse, top_, threshold_, sums);
      }
      error += sums.magnitude;
      zero = sums.zeros / static_cast<float>(size_);
    }
    errors_[row] = error;
  }

  void refine_row(int64_t row) {
    for (int64_t g = 0; g < groups_; ++g) {
      const int64_t at = row * groups_ + g;
      const HqqGrid grid = hqq_refined(group(row, g), size_, {scales_[at], zeros_[at]}, top_);
      scales_[at] = grid.scale;
      zeros_[at] = grid.zero;
    }
  }

  const LinearJob& job_;
  int64_t size_, groups_;
  float top_;  // the largest code
  float threshold_ = hqq_threshold();
  std::vector<float> scales_;  // codes per unit of weight
  std::vector<float> zeros_;
  std::vector<double> errors_;  // sum of |error| by row
};

}  // namespace

QTensor Hqq::quantize(const LinearJob& job, const QuantScheme& request) const {
  if (job.device != nullptr) return job.device->hqq(job, request);
  const QuantScheme scheme = for_shape(request, job.rows, job.cols);
  LOWBIT_CHECK(scheme.code == Code::kInt && scheme.bits >= 1 && scheme.bits <= 8 &&
                   scheme.group_rows == 1 && scheme.zero == Zero::kOffset,
               job.name, ": hqq makes integer codes of 1 to 8 bits with float zeros, not ",
               name_of(scheme));
  LOWBIT_CHECK(
      job.rows > 0 && job.cols > 0 && job.weight.size() == static_cast<size_t>(job.rows) * job.cols,
      job.name, ": ", job.weight.size(), " weights for ", job.rows, " x ", job.cols);
  LOWBIT_CHECK(scheme.group_size > 0 && job.cols % scheme.group_size == 0, job.name, ": groups of ",
               scheme.group_size, " do not divide ", job.cols, " columns");
  Solver solver(job, scheme);
  solver.solve(scheme.bits == 4);
  return solver.encode(scheme);
}

}  // namespace lowbit

#include "lowbit/quantize/hqq.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr int kIterations = 20;
constexpr int kFits = 3;  // by least squares, from each start
constexpr float kNorm = 0.7f;
constexpr float kBeta = 10.f;
constexpr float kLargestScale = 2e4f;  // of codes per unit of weight: fp16 holds its inverse

float round_to_even(float x) {
  const float shifted = x + 12582912.f;
  return shifted - 12582912.f;
}

// The proximal operator of the norm. It is 0 wherever |e|^(2 - p) <= 1 / beta, which spares the
// power for almost all weights.
float shrink(float error) {
  static const float threshold = std::pow(1.f / kBeta, 1.f / (2.f - kNorm));
  const float magnitude = std::fabs(error);
  if (magnitude < threshold) return 0.f;
  const float kept = magnitude - std::pow(magnitude, kNorm - 1.f) / kBeta;
  return std::copysign(std::max(kept, 0.f), error);
}

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
    for (int i = 0; i < kIterations; ++i) {
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
      const float range = *high - *low;
      const float scale = std::min(range <= 1e-4f ? 1.f : top_ / range, kLargestScale);
      const float zero = -*low * scale;
      scales_[row * groups_ + g] = scale;
      zeros_[row * groups_ + g] = round_zero ? round_to_even(zero) : zero;
    }
  }

  void step_row(int64_t row) {
    double error = 0;
    for (int64_t g = 0; g < groups_; ++g) {
      const float* values = group(row, g);
      const float scale = scales_[row * groups_ + g];
      float& zero = zeros_[row * groups_ + g];
      const float inverse = 1.f / scale;
      float sum = 0, magnitude = 0;
      for (int64_t k = 0; k < size_; ++k) {
        const float code = std::clamp(round_to_even(values[k] * scale + zero), 0.f, top_);
        const float difference = values[k] - (code - zero) * inverse;
        magnitude += std::fabs(difference);
        sum += code - (values[k] - shrink(difference)) * scale;
      }
      error += magnitude;
      zero = sum / static_cast<float>(size_);
    }
    errors_[row] = error;
  }

  // A group's line as fp16 holds it.
  struct Line {
    float scale = 0, zero = 0;  // w = scale * (q - zero)
  };
  Line stored(float scale, float zero) const {
    return {f16_to_f32(f32_to_f16(scale)), f16_to_f32(f32_to_f16(zero))};
  }
  bool usable(const Line& line) const {
    return line.scale > 0 && std::isfinite(line.scale) && std::isfinite(line.zero);
  }
  float code_of(float value, const Line& line) const {
    return std::clamp(round_to_even(value / line.scale + line.zero), 0.f, top_);
  }
  float squared_error(const float* values, const Line& line) const {
    float error = 0;
    for (int64_t k = 0; k < size_; ++k) {
      const float difference = values[k] - line.scale * (code_of(values[k], line) - line.zero);
      error += difference * difference;
    }
    return error;
  }

  // The line of least squares through the codes that `line` gives; scale 0 if they are all equal.
  Line fitted(const float* values, const Line& line) const {
    float codes = 0, sum = 0;
    for (int64_t k = 0; k < size_; ++k) {
      codes += code_of(values[k], line);
      sum += values[k];
    }
    const auto count = static_cast<float>(size_);
    const float mean_code = codes / count, mean = sum / count;
    float products = 0, squares = 0;
    for (int64_t k = 0; k < size_; ++k) {
      const float code = code_of(values[k], line) - mean_code;
      products += code * (values[k] - mean);
      squares += code * code;
    }
    if (!(products > 0)) return {};
    const float scale = products / squares;
    return stored(scale, mean_code - mean / scale);
  }

  // Lines fitted from the solution, and from narrower ones about its middle: that of least squares.
  void refine_row(int64_t row) {
    for (int64_t g = 0; g < groups_; ++g) {
      const int64_t at = row * groups_ + g;
      const float* values = group(row, g);
      const Line start = stored(1.f / scales_[at], zeros_[at]);
      if (!usable(start)) continue;
      float least = squared_error(values, start);
      for (const float width : {1.f, 0.95f, 0.9f, 0.85f, 0.8f}) {
        const float middle = top_ / 2;
        Line line = stored(start.scale * width, middle - (middle - start.zero) / width);
        for (int round = 0; round < kFits && usable(line); ++round) {
          line = fitted(values, line);
          if (!usable(line)) break;
          const float error = squared_error(values, line);
          if (error < least) {
            least = error;
            scales_[at] = 1.f / line.scale;
            zeros_[at] = line.zero;
          }
        }
      }
    }
  }

  const LinearJob& job_;
  int64_t size_, groups_;
  float top_;                  // the largest code
  std::vector<float> scales_;  // codes per unit of weight
  std::vector<float> zeros_;
  std::vector<double> errors_;  // sum of |error| by row
};

}  // namespace

QTensor Hqq::quantize(const LinearJob& job, const QuantScheme& request) const {
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

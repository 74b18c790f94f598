#include "lowbit/quantize/learned_rounding.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lowbit/base/check.h"
#include "lowbit/base/vector_math.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/quantize/scale_search.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr float kLeastStretch = 0.2f, kMostStretch = 2.f;
constexpr float kLargestScale = 65504.f / kMostStretch;
// Adam's memory of slopes and of their squares, and what keeps it from dividing by 0.
constexpr float kMeanKept = 0.9f, kSquareKept = 0.98f, kSmallSlope = 1e-10f;

}  // namespace

LearnedRounding::LearnedRounding(const BlockWeights::Linear& linear, const QuantScheme& scheme,
                                 std::span<const float> importance, ThreadPool& pool)
    : linear_(linear),
      scheme_(scheme),
      pool_(pool),
      symmetric_(scheme.zero == Zero::kNone),
      size_(scheme.group_size),
      groups_(scheme.group_size > 0 ? linear.cols / scheme.group_size : 0) {
  check();
  LOWBIT_CHECK(importance.size() == static_cast<size_t>(linear.cols), linear.name,
               ": importance of ", importance.size(), " columns, not ", linear.cols);
  state_.offsets.resize(linear.weight.size());
  state_.first.resize(static_cast<size_t>(linear.rows * groups_));
  state_.stretch.assign(state_.first.size(), 1.f);
  if (!symmetric_) {
    state_.second.resize(state_.first.size());
    state_.shrink_high.assign(state_.first.size(), 1.f);
  }
  pool.parallel_for(linear.rows, [&](int64_t row, int) { start_row(row, importance); });
}

LearnedRounding::LearnedRounding(const BlockWeights::Linear& linear, const QuantScheme& scheme,
                                 RoundingState state, ThreadPool& pool)
    : linear_(linear),
      scheme_(scheme),
      pool_(pool),
      symmetric_(scheme.zero == Zero::kNone),
      size_(scheme.group_size),
      groups_(scheme.group_size > 0 ? linear.cols / scheme.group_size : 0),
      state_(std::move(state)) {
  check();
  const auto ranges = static_cast<size_t>(linear.rows * groups_);
  const size_t seconds = symmetric_ ? 0 : ranges;
  LOWBIT_CHECK_KIND(state_.offsets.size() == linear.weight.size() &&
                        state_.first.size() == ranges && state_.stretch.size() == ranges &&
                        state_.second.size() == seconds && state_.shrink_high.size() == seconds,
                    ErrorKind::kCorruptFile, linear.name,
                    ": what was learned of it has another shape");
}

void LearnedRounding::check() const {
  LOWBIT_CHECK(scheme_.code == Code::kInt && scheme_.bits >= 2 && scheme_.bits <= 8 &&
                   scheme_.group_rows == 1 && scheme_.zero != Zero::kOffset,
               linear_.name, ": autoround makes integer codes of 2 to 8 bits, not ",
               name_of(scheme_));
  LOWBIT_CHECK(size_ > 0 && linear_.cols % size_ == 0, linear_.name, ": groups of ", size_,
               " do not divide ", linear_.cols, " columns");
}

void LearnedRounding::start_row(int64_t row, std::span<const float> importance) {
  const float* weights = linear_.weight.data() + row * linear_.cols;
  check_finite(linear_.name, {weights, static_cast<size_t>(linear_.cols)}, row);
  for (int64_t g = 0; g < groups_; ++g) {
    const float* w = weights + g * size_;
    const int64_t at = group_at(row, g);
    float range = 0;
    if (symmetric_) {
      state_.first[at] = best_scale(w, importance.data() + g * size_, size_, scheme_.bits);
      range = std::fabs(state_.first[at]);
    } else {
      state_.first[at] = std::min(0.f, *std::min_element(w, w + size_));
      state_.second[at] = std::max(0.f, *std::max_element(w, w + size_));
      range = (state_.second[at] - state_.first[at]) / static_cast<float>((1 << scheme_.bits) - 1);
      shrink_range(w, importance.data() + g * size_, at);
    }
    LOWBIT_CHECK(range <= kLargestScale, linear_.name, ": row ", row, " needs a scale of ", range,
                 ", which fp16 cannot hold; keep this module in 16 bits with --skip");
  }
}

// Both ends together, down to half.
void LearnedRounding::shrink_range(const float* w, const float* importance, int64_t group) {
  constexpr int kSteps = 40;
  float best = 1.f, least = std::numeric_limits<float>::infinity();
  for (int i = 0; i <= kSteps; ++i) {
    const float factor = 1.f - 0.5f * static_cast<float>(i) / kSteps;
    state_.stretch[group] = state_.shrink_high[group] = factor;
    const Grid g = grid(group);
    const float error = rounding_error(w, importance, size_, g.scale, g.low, g.high);
    if (error < least) {
      least = error;
      best = factor;
    }
  }
  state_.stretch[group] = state_.shrink_high[group] = best;
}

LearnedRounding::Grid LearnedRounding::grid(int64_t group) const {
  const float levels = static_cast<float>((1 << scheme_.bits) - 1);
  if (symmetric_) {
    const float scale = stored_scale(state_.first[group] * state_.stretch[group]);
    const float half = static_cast<float>(1 << (scheme_.bits - 1));
    return {scale, 1.f / scale, -half, half - 1};
  }
  const float low = state_.first[group] * state_.stretch[group],
              high = state_.second[group] * state_.shrink_high[group];
  const float scale = high > low ? stored_scale((high - low) / levels) : 1.f;
  const float zero = clamped(round_to_even(-low / scale), 0.f, levels);
  return {scale, 1.f / scale, -zero, levels - zero};
}

// work(row, group, first weight)
template <typename Work>
void LearnedRounding::for_groups(const Work& work) const {
  pool_.parallel_for(linear_.rows, [&](int64_t row, int) {
    for (int64_t g = 0; g < groups_; ++g) {
      work(row, group_at(row, g), row * linear_.cols + g * size_);
    }
  });
}

void LearnedRounding::dequantize(std::vector<float>& weight) const {
  for_groups([&](int64_t, int64_t group, int64_t first) {
    const Grid g = grid(group);
    const float* w = linear_.weight.data() + first;
    const float* offset = state_.offsets.data() + first;
    float* out = weight.data() + first;
    for (int64_t k = 0; k < size_; ++k) {
      out[k] = g.scale * clamped(round_to_even(w[k] * g.inverse + offset[k]), g.low, g.high);
    }
  });
}

void LearnedRounding::descend(const std::vector<float>& gradient, float rate) {
  LOWBIT_CHECK(gradient.size() == state_.offsets.size(), linear_.name, ": ", gradient.size(),
               " gradients for ", state_.offsets.size(), " weights");
  for_groups([&](int64_t, int64_t group, int64_t first) {
    descend_group(group, gradient.data() + first, rate);
  });
}

// w' = scale * r. Inside of its range r follows w / scale + offset, outside it is a limit, which in
// the asymmetric case moves with the zero point.
LearnedRounding::RangeSlopes LearnedRounding::range_slopes(int64_t group, const Grid& g,
                                                           const float* gradient) const {
  const float* w = linear_.weight.data() + group * size_;
  const float* offset = state_.offsets.data() + group * size_;
  const float by_scale = sum_of(size_, [&](int64_t k) {
    const float scaled = w[k] * g.inverse, rounded = round_to_even(scaled + offset[k]);
    const float r = clamped(rounded, g.low, g.high);
    return gradient[k] * (r - (rounded == r ? scaled : 0.f));
  });
  if (symmetric_) return {by_scale * state_.first[group], 0};
  const float by_zero = -g.scale * sum_of(size_, [&](int64_t k) {
    const float rounded = round_to_even(w[k] * g.inverse + offset[k]);
    return rounded == clamped(rounded, g.low, g.high) ? 0.f : gradient[k];
  });
  const float levels = static_cast<float>((1 << scheme_.bits) - 1);
  const float low = state_.first[group] * state_.stretch[group];
  const float by_range = (by_scale + by_zero * low * g.inverse * g.inverse) / levels;
  return {(-by_range - by_zero * g.inverse) * state_.first[group], by_range * state_.second[group]};
}

void LearnedRounding::move_range(int64_t group, float stretch, float shrink_high) {
  if (symmetric_) {
    state_.stretch[group] = clamped(state_.stretch[group] - stretch, kLeastStretch, kMostStretch);
  } else {
    state_.stretch[group] = clamped(state_.stretch[group] - stretch, 0.f, 1.f);
    state_.shrink_high[group] = clamped(state_.shrink_high[group] - shrink_high, 0.f, 1.f);
  }
}

void LearnedRounding::descend_group(int64_t group, const float* gradient, float rate) {
  const Grid g = grid(group);
  const auto step = [rate](float slope) { return slope > 0 ? rate : slope < 0 ? -rate : 0.f; };
  const RangeSlopes slopes = range_slopes(group, g, gradient);
  move_range(group, step(slopes.stretch), step(slopes.shrink_high));
  const float* w = linear_.weight.data() + group * size_;
  float* offset = state_.offsets.data() + group * size_;
  const float up = g.scale > 0 ? rate : -rate;
  for (int64_t k = 0; k < size_; ++k) {
    const float rounded = round_to_even(w[k] * g.inverse + offset[k]);
    const float move = gradient[k] > 0 ? up : gradient[k] < 0 ? -up : 0.f;
    offset[k] -= rounded == clamped(rounded, g.low, g.high) ? move : 0.f;
  }
}

void LearnedRounding::adam(const std::vector<float>& gradient, const AdamStep& step) {
  LOWBIT_CHECK(gradient.size() == state_.offsets.size(), linear_.name, ": ", gradient.size(),
               " gradients for ", state_.offsets.size(), " weights");
  const auto begin = [](Moments& moments, size_t size) {
    moments.mean.resize(size);
    moments.square.resize(size);
  };
  begin(offset_moments_, state_.offsets.size());
  begin(stretch_moments_, state_.stretch.size());
  begin(shrink_moments_, state_.shrink_high.size());
  for_groups([&](int64_t, int64_t group, int64_t first) {
    adam_group(group, gradient.data() + first, step);
  });
}

void LearnedRounding::adam_group(int64_t group, const float* gradient, const AdamStep& step) {
  const float whole_mean = 1.f - std::pow(kMeanKept, static_cast<float>(step.number));
  const float whole_square = 1.f - std::pow(kSquareKept, static_cast<float>(step.number));
  const auto moved = [&](Moments& moments, int64_t at, float slope) {
    float& mean = moments.mean[at];
    float& square = moments.square[at];
    mean = kMeanKept * mean + (1.f - kMeanKept) * slope;
    square = kSquareKept * square + (1.f - kSquareKept) * slope * slope;
    return mean / whole_mean / (std::sqrt(square / whole_square) + kSmallSlope);
  };
  const Grid g = grid(group);
  const RangeSlopes slopes = range_slopes(group, g, gradient);
  const float* w = linear_.weight.data() + group * size_;
  float* offset = state_.offsets.data() + group * size_;
  for (int64_t k = 0; k < size_; ++k) {
    const float rounded = round_to_even(w[k] * g.inverse + offset[k]);
    const bool inside = rounded == clamped(rounded, g.low, g.high);
    offset[k] -=
        step.rate * moved(offset_moments_, group * size_ + k, inside ? gradient[k] * g.scale : 0.f);
  }
  const float stretch = moved(stretch_moments_, group, slopes.stretch);
  const float high = symmetric_ ? 0.f : moved(shrink_moments_, group, slopes.shrink_high);
  move_range(group, step.range_rate * stretch, step.range_rate * high);
}

QTensor LearnedRounding::encode() const {
  QTensor weight;
  weight.scheme = scheme_;
  weight.rows = linear_.rows;
  weight.cols = linear_.cols;
  weight.scales.resize(state_.first.size());
  if (!symmetric_) weight.zeros.resize(state_.first.size());
  std::vector<uint8_t> codes(static_cast<size_t>(weight.rows * weight.row_bytes()));
  for_groups([&](int64_t row, int64_t group, int64_t first) {
    const Grid g = grid(group);
    weight.scales[group] = g.scale;
    if (!symmetric_) weight.zeros[group] = static_cast<uint8_t>(-g.low);
    uint8_t* row_codes = codes.data() + row * weight.row_bytes();
    for (int64_t k = 0; k < size_; ++k) {
      const float scaled = linear_.weight[first + k] * g.inverse + state_.offsets[first + k];
      const float code = clamped(round_to_even(scaled), g.low, g.high) - g.low;
      pack(row_codes, first - row * linear_.cols + k, scheme_.bits, static_cast<uint32_t>(code));
    }
  });
  weight.codes = Bytes::own(std::move(codes));
  return weight;
}

}  // namespace lowbit

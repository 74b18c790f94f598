#include "lowbit/quantize/smooth_search.h"

#include <algorithm>
#include <cmath>

#include "lowbit/quantize/awq.h"
#include "lowbit/runtime/cpu/gemm.h"
#include "lowbit/tensor/input_rounding.h"

namespace lowbit {

namespace {

constexpr float kLeast = 1e-5f;
constexpr int kSteps = 20;  // alphas tried

// The column whose scale column k shares: heads of queries that share a head of v.
int64_t shared_column(const BlockWeights& block, LinearGroup group, int64_t k) {
  if (group != kOutputInput) return k;
  const AttentionShape& shape = block.attention;
  const int64_t head = k / shape.head_dim, same = shape.heads / shape.kv_heads;
  return head / same * shape.head_dim + k % shape.head_dim;
}

void divide(std::vector<float>& values, const std::vector<float>& scales) {
  for (size_t k = 0; k < values.size(); ++k) values[k] /= scales[k];
}

void divide_rows(BlockWeights::Linear& linear, const std::vector<float>& scales) {
  for (int64_t row = 0; row < linear.rows; ++row) {
    float* weights = linear.weight.data() + row * linear.cols;
    for (int64_t k = 0; k < linear.cols; ++k) weights[k] /= scales[static_cast<size_t>(row)];
  }
  if (!linear.bias.empty()) divide(linear.bias, scales);
}

// The errors of one group of linears for some scales of their inputs.
class Trial {
 public:
  Trial(const BlockJob& job, LinearGroup group, const InputSamples& inputs)
      : job_(job), inputs_(inputs), group_(group), x_(inputs.rows[group]) {
    for (int i = 0; i < kBlockLinears; ++i) {
      if (group_of(i) == group && !job.schemes[i].dense()) members_.push_back(i);
    }
    if (members_.empty()) return;
    cols_ = job.block.linears[members_[0]].cols;
    tokens_ = static_cast<int64_t>(x_.size()) / cols_;
    for (const int i : members_) {
      exact_.push_back(product(x_, job.block.linears[i].weight, job.block.linears[i].rows));
    }
    squares_.resize(static_cast<size_t>(tokens_), 1e-12);
    for (const std::vector<float>& y : exact_) add_squares(y, squares_);
  }

  bool empty() const { return members_.empty(); }

  double loss(const std::vector<float>& scales) {
    std::vector<double> errors(squares_.size());
    for (size_t m = 0; m < members_.size(); ++m) {
      const BlockWeights::Linear& linear = job_.block.linears[members_[m]];
      const QuantScheme& scheme = job_.schemes[members_[m]];
      std::vector<float> y = product(rounded(scheme, scales),
                                     awq_rounded(linear, scheme, scales, job_.pool), linear.rows);
      for (size_t i = 0; i < y.size(); ++i) y[i] -= exact_[m][i];
      add_squares(y, errors);
    }
    double sum = 0;
    for (size_t t = 0; t < errors.size(); ++t) sum += errors[t] / squares_[t];
    return sum;
  }

 private:
  // Sampled inputs, rounded as they are after division by the scales, and multiplied by them again.
  std::vector<float> rounded(const QuantScheme& scheme, const std::vector<float>& scales) const {
    std::vector<float> x = x_;
    const InputRounding rounding =
        rounding_of(scheme, inputs_.low[group_], inputs_.high[group_], scales);
    if (rounding.bits == 0) return x;
    job_.pool.parallel_for(tokens_, [&](int64_t t, int) {
      float* row = x.data() + t * cols_;
      for (int64_t k = 0; k < cols_; ++k) row[k] /= scales[static_cast<size_t>(k)];
      round_input_values(rounding, row, cols_, row);
      for (int64_t k = 0; k < cols_; ++k) row[k] *= scales[static_cast<size_t>(k)];
    });
    return x;
  }

  std::vector<float> product(const std::vector<float>& x, const std::vector<float>& weight,
                             int64_t rows) {
    std::vector<float> y(static_cast<size_t>(tokens_ * rows));
    gemm_.multiply(tokens_, rows, cols_, cpu::rows_of(x.data(), cols_),
                   cpu::transposed(weight.data(), cols_), y.data(), rows);
    return y;
  }

  static void add_squares(const std::vector<float>& y, std::vector<double>& sums) {
    const size_t rows = y.size() / sums.size();
    for (size_t t = 0; t < sums.size(); ++t) {
      for (size_t n = 0; n < rows; ++n) {
        const double value = y[t * rows + n];
        sums[t] += value * value;
      }
    }
  }

  const BlockJob& job_;
  const InputSamples& inputs_;
  LinearGroup group_;
  const std::vector<float>& x_;  // [tokens][cols]
  int64_t cols_ = 0, tokens_ = 0;
  std::vector<int> members_;
  std::vector<std::vector<float>> exact_;  // by member: [tokens][rows]
  std::vector<double> squares_;            // of each token's exact outputs
  cpu::Gemm gemm_{&job_.pool};
};

}  // namespace

std::vector<float> smoothing_scales(const BlockWeights& block, LinearGroup group,
                                    const std::vector<float>& x_maxima, double alpha) {
  const size_t cols = x_maxima.size();
  std::vector<float> inputs(cols, kLeast), weights(cols, kLeast);
  for (size_t k = 0; k < cols; ++k) {
    const auto at = static_cast<size_t>(shared_column(block, group, static_cast<int64_t>(k)));
    inputs[at] = std::max(inputs[at], x_maxima[k]);
    for (int i = 0; i < kBlockLinears; ++i) {
      if (group_of(i) != group) continue;
      const std::vector<float>& weight = block.linears[i].weight;
      for (size_t n = k; n < weight.size(); n += cols) {
        weights[at] = std::max(weights[at], std::fabs(weight[n]));
      }
    }
  }
  std::vector<float> scales(cols);
  for (size_t k = 0; k < cols; ++k) {
    const auto at = static_cast<size_t>(shared_column(block, group, static_cast<int64_t>(k)));
    scales[k] = static_cast<float>(std::pow(inputs[at], alpha) / std::pow(weights[at], 1 - alpha));
  }
  return scales;
}

std::vector<float> search_smoothing(const BlockJob& job, LinearGroup group,
                                    const InputSamples& inputs) {
  const size_t cols = inputs.low[group].size();
  std::vector<float> best(cols, 1.f), maxima(cols);
  for (size_t k = 0; k < cols; ++k) {
    maxima[k] = std::max(std::fabs(inputs.low[group][k]), std::fabs(inputs.high[group][k]));
  }
  Trial trial(job, group, inputs);
  if (trial.empty()) return best;
  double least = trial.loss(best);
  for (int step = 0; step < kSteps; ++step) {
    const std::vector<float> scales =
        smoothing_scales(job.block, group, maxima, static_cast<double>(step) / kSteps);
    const double loss = trial.loss(scales);
    if (loss < least) {
      least = loss;
      best = scales;
    }
  }
  return best;
}

void fold_smoothing(BlockWeights& block, LinearGroup group, const std::vector<float>& scales) {
  switch (group) {
    case kAttentionInput:
      divide(block.input_norm, scales);
      break;
    case kOutputInput: {
      // One head of each that shares a head of v.
      const AttentionShape& shape = block.attention;
      const int64_t same = shape.heads / shape.kv_heads;
      std::vector<float> of_rows(static_cast<size_t>(block.linears[kV].rows));
      for (size_t row = 0; row < of_rows.size(); ++row) {
        const auto n = static_cast<int64_t>(row);
        of_rows[row] = scales[static_cast<size_t>(n / shape.head_dim * same * shape.head_dim +
                                                  n % shape.head_dim)];
      }
      divide_rows(block.linears[kV], of_rows);
      break;
    }
    case kMlpInput:
      divide(block.post_attention_norm, scales);
      break;
    case kDownInput:
      divide_rows(block.linears[kUp], scales);
      break;
  }
  for (int i = 0; i < kBlockLinears; ++i) {
    if (group_of(i) != group) continue;
    BlockWeights::Linear& linear = block.linears[i];
    for (size_t at = 0; at < linear.weight.size(); ++at) {
      linear.weight[at] *= scales[at % scales.size()];
    }
  }
}

InputRounding rounding_of(const QuantScheme& scheme, const std::vector<float>& low,
                          const std::vector<float>& high, const std::vector<float>& scales) {
  InputRounding rounding{scheme.input_bits, scheme.input_form, false, 0, 0};
  if (rounding.bits == 0 || !has_static_inputs(scheme)) return rounding;
  float least = 0, most = 0;
  for (size_t k = 0; k < low.size(); ++k) {
    least = std::min(least, low[k] / scales[k]);
    most = std::max(most, high[k] / scales[k]);
  }
  const auto half = static_cast<float>(1 << (scheme.input_bits - 1));
  if (scheme.input_form == InputForm::kStaticZero) {
    rounding.scale = std::max((most - least) / (2 * half - 1), 1e-20f);
    rounding.zero = static_cast<int>(
        std::clamp(std::nearbyint(-half - least / rounding.scale), -half, half - 1));
  } else {
    rounding.scale = std::max(std::max(most, -least) / (half - 1), 1e-20f);
  }
  return rounding;
}

}  // namespace lowbit

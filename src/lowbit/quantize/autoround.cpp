#include "lowbit/quantize/autoround.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "lowbit/base/check.h"
#include "lowbit/base/vector_math.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/learned_rounding.h"
#include "lowbit/quantize/sample_order.h"

namespace lowbit {

namespace {

constexpr int64_t kFewIterations = 50;          // fewer would leap: each range by half itself
constexpr int64_t kTokensOfStep = 2048;         // of a batch, unless asked for another
constexpr int64_t kTokensAtOnce = 4096;         // of one pass: bounds the memory of a step
constexpr int64_t kImportanceTokens = 1 << 15;  // that decide where scales start

class Training {
 public:
  Training(BlockJob& job, const AutoRoundOptions& options)
      : job_(job),
        options_(options),
        block_(job.block, job.rope, job.pool),
        order_(job.quantized_input->samples(), job.seed) {
    std::vector<std::vector<float>> importance = measure_importance();
    for (int i = 0; i < kBlockLinears; ++i) {
      const auto n = static_cast<size_t>(i);
      if (job.schemes[n].dense()) continue;
      roundings_[n].emplace(job.block.linears[n], job.schemes[n], importance[group_of(i)],
                            job.pool);
      gradients_[n].resize(job.block.linears[n].weight.size());
    }
  }

  BlockResult run() {
    const double steady = 1.0 / static_cast<double>(std::max(options_.iterations, kFewIterations));
    const double rate = options_.learning_rate > 0 ? options_.learning_rate : steady;
    for (int64_t i = 0; i < options_.iterations; ++i) {
      const double left = static_cast<double>(options_.iterations - i) / options_.iterations;
      const double loss = step(static_cast<float>(rate * left));
      if (job_.progress) job_.progress(1 - left, concat("loss ", static_cast<float>(loss)));
    }
    BlockResult result;
    for (size_t n = 0; n < roundings_.size(); ++n) {
      if (!roundings_[n]) continue;
      result[n] = roundings_[n]->encode();
      if (job_.roundings != nullptr) (*job_.roundings)[n] = roundings_[n]->state();
    }
    return result;
  }

 private:
  int64_t tokens() const { return job_.quantized_input->tokens(); }
  int64_t hidden() const { return job_.block.hidden; }
  int64_t batch_size() const {
    if (options_.batch_size > 0) return options_.batch_size;
    return std::max<int64_t>(1, kTokensOfStep / tokens());
  }
  int64_t samples_at_once() const { return std::max<int64_t>(1, kTokensAtOnce / tokens()); }

  // Copies samples one after another.
  static void gather(const HiddenStates& states, std::span<const int64_t> samples,
                     std::vector<float>& out) {
    out.clear();
    for (const int64_t sample : samples) {
      const std::span<const float> values = states.sample(sample);
      out.insert(out.end(), values.begin(), values.end());
    }
  }

  // 1 / |target|^2 of every token in target_: an error is as bad as it is large beside what the
  // token carries, because the next norm divides by that. Without it the first token decides alone:
  // in some models it is a thousand times as large as the others.
  void weigh_tokens() {
    const auto tokens = static_cast<int64_t>(target_.size()) / hidden();
    token_weights_.resize(static_cast<size_t>(tokens));
    job_.pool.parallel_for(tokens, [&](int64_t token, int) {
      const float* target = target_.data() + token * hidden();
      const float size = sum_of(hidden(), [&](int64_t i) { return target[i] * target[i]; });
      token_weights_[token] = 1.f / std::max(size, 1e-30f);
    });
  }

  // Weighted mean squared input of every column, by group of linears.
  std::vector<std::vector<float>> measure_importance() {
    std::vector<std::vector<float>> importance(kLinearGroups);
    const int64_t samples = std::min(job_.quantized_input->samples(),
                                     std::max<int64_t>(1, kImportanceTokens / tokens()));
    std::vector<int64_t> all(static_cast<size_t>(samples));
    std::iota(all.begin(), all.end(), 0);
    for (int64_t first = 0; first < samples; first += samples_at_once()) {
      const int64_t count = std::min(samples_at_once(), samples - first);
      forward(std::span(all).subspan(first, count));
      for (int i : {kQ, kO, kGate, kDown}) {
        add_squares(trace_.input_of(i), job_.block.linears[static_cast<size_t>(i)].cols,
                    importance[group_of(i)]);
      }
    }
    return importance;
  }

  void add_squares(const std::vector<float>& x, int64_t cols, std::vector<float>& sums) {
    sums.resize(static_cast<size_t>(cols));
    constexpr int64_t kShare = 32;
    const auto rows = static_cast<int64_t>(x.size()) / cols;
    job_.pool.parallel_for((cols + kShare - 1) / kShare, [&](int64_t share, int) {
      const int64_t first = share * kShare, last = std::min(cols, first + kShare);
      for (int64_t row = 0; row < rows; ++row) {
        const float* values = x.data() + row * cols;
        for (int64_t k = first; k < last; ++k)
          sums[k] += token_weights_[row] * values[k] * values[k];
      }
    });
  }

  // Fills x_, target_, token_weights_, trace_ and y_ for some samples.
  void forward(std::span<const int64_t> samples) {
    gather(*job_.quantized_input, samples, x_);
    gather(*job_.target, samples, target_);
    weigh_tokens();
    y_.resize(x_.size());
    block_.forward({static_cast<int64_t>(samples.size()), tokens()}, x_, trace_, y_);
  }

  // One batch; returns its loss.
  double step(float rate) {
    for (size_t n = 0; n < roundings_.size(); ++n) {
      std::fill(gradients_[n].begin(), gradients_[n].end(), 0.f);
      if (roundings_[n]) roundings_[n]->dequantize(block_.weights().linears[n].weight);
    }
    const std::vector<int64_t> batch = order_.next(batch_size());
    const auto size = static_cast<int64_t>(batch.size());
    double loss = 0;
    for (int64_t first = 0; first < size; first += samples_at_once()) {
      const int64_t count = std::min(samples_at_once(), size - first);
      forward(std::span(batch).subspan(first, count));
      loss += differentiate_loss(count * tokens());
      block_.backward(x_, trace_, y_, gradients_);
    }
    for (size_t n = 0; n < roundings_.size(); ++n) {
      if (roundings_[n]) roundings_[n]->descend(gradients_[n], rate);
    }
    return loss / static_cast<double>(size * tokens());
  }

  // Sum over tokens of |y - target|^2 / |target|^2; y_ becomes its gradient, up to a factor (only
  // its sign counts).
  double differentiate_loss(int64_t tokens) {
    losses_.resize(static_cast<size_t>(tokens));
    job_.pool.parallel_for(tokens, [&](int64_t token, int) {
      float* y = y_.data() + token * hidden();
      const float* target = target_.data() + token * hidden();
      const float weight = token_weights_[token];
      for (int64_t i = 0; i < hidden(); ++i) y[i] -= target[i];
      losses_[token] = weight * sum_of(hidden(), [&](int64_t i) { return y[i] * y[i]; });
      for (int64_t i = 0; i < hidden(); ++i) y[i] *= weight;
    });
    return std::accumulate(losses_.begin(), losses_.end(), 0.0);
  }

  BlockJob& job_;
  const AutoRoundOptions& options_;
  DecoderBlock block_;
  SampleOrder order_;
  std::array<std::optional<LearnedRounding>, kBlockLinears> roundings_;
  BlockGradients gradients_;
  BlockTrace trace_;
  std::vector<float> x_, y_, target_;          // [tokens][hidden]
  std::vector<float> token_weights_, losses_;  // [tokens]
};

}  // namespace

AutoRound::AutoRound(const AutoRoundOptions& options) : options_(options) {
  LOWBIT_CHECK(
      options.iterations > 0 && options.batch_size >= 0 && options.learning_rate >= 0,
      "autoround needs at least one iteration, and a batch size and rate that are not negative, "
      "not ",
      options.iterations, ", ", options.batch_size, ", ", options.learning_rate);
}

CalibrationNeeds AutoRound::needs() const {
  CalibrationNeeds needs;
  needs.quantized_input = true;
  needs.target = true;
  return needs;
}

BlockResult AutoRound::quantize(BlockJob& job) const {
  LOWBIT_CHECK(job.quantized_input != nullptr && job.target != nullptr,
               "autoround needs the block's input and target");
  return Training(job, options_).run();
}

}  // namespace lowbit

// The passes of learning, for the source files that instantiate them: forward through a block,
// autoround's steps on one block, and the steps on the whole model. Kit names what they compute
// with:
//
//   Fit       HostFit or cuda::Fit
//   Rounding  as LearnedRounding, over Fit's arrays; Kit::rounding(...) makes one
//   Loss      as DivergenceLoss, over Fit's arrays; Kit::loss(...) makes one
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/quantize/calibrated_blocks.h"
#include "lowbit/quantize/decoder_block_passes.h"
#include "lowbit/quantize/learned_rounding.h"
#include "lowbit/quantize/learning.h"
#include "lowbit/quantize/sample_order.h"

namespace lowbit::detail {

constexpr int64_t kFewIterations = 50;          // fewer would leap: each range by half itself
constexpr int64_t kTokensOfStep = 2048;         // of a batch, unless asked for another
constexpr int64_t kTokensAtOnce = 4096;         // of one pass: bounds the memory of a step
constexpr int64_t kImportanceTokens = 1 << 15;  // that decide where scales start

// Copies samples one after another to where `fit` computes.
template <typename Fit>
void gather(Fit& fit, const HiddenStates& states, std::span<const int64_t> samples,
            typename Fit::Array& out) {
  const int64_t size = states.tokens() * states.hidden_size();
  out.resize(samples.size() * static_cast<size_t>(size));
  for (size_t i = 0; i < samples.size(); ++i) {
    fit.upload(states.sample(samples[i]), out.data() + static_cast<int64_t>(i) * size);
  }
}

// autoround on one block.
template <typename Kit>
class Training {
 public:
  using Fit = typename Kit::Fit;
  using Array = typename Fit::Array;

  Training(BlockJob& job, const AutoRoundOptions& options)
      : job_(job),
        options_(options),
        fit_(Kit::fit(job.pool)),
        block_(job.block, job.rope, Kit::fit(job.pool)),
        order_(job.quantized_input->samples(), job.seed) {
    const std::vector<std::vector<float>> importance = measure_importance();
    for (int i = 0; i < kBlockLinears; ++i) {
      const auto n = static_cast<size_t>(i);
      if (job.schemes[n].dense()) continue;
      roundings_[n] = Kit::rounding(fit_, job.block.linears[n], job.schemes[n],
                                    std::span<const float>(importance[group_of(i)]), job.pool);
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

  // Weighted mean squared input of every column, by group of linears.
  std::vector<std::vector<float>> measure_importance() {
    std::array<Array, kLinearGroups> sums;
    const int64_t samples = std::min(job_.quantized_input->samples(),
                                     std::max<int64_t>(1, kImportanceTokens / tokens()));
    std::vector<int64_t> all(static_cast<size_t>(samples));
    std::iota(all.begin(), all.end(), 0);
    for (int64_t first = 0; first < samples; first += samples_at_once()) {
      const int64_t count = std::min(samples_at_once(), samples - first);
      forward(std::span(all).subspan(first, count));
      for (const int i : {kQ, kO, kGate, kDown}) {
        const int64_t cols = job_.block.linears[static_cast<size_t>(i)].cols;
        Array& sum = sums[group_of(i)];
        sum.resize(static_cast<size_t>(cols));
        fit_.add_weighted_squares(trace_.input_of(i).data(), token_weights_.data(),
                                  count * tokens(), cols, sum.data());
      }
    }
    std::vector<std::vector<float>> importance(kLinearGroups);
    for (int group = 0; group < kLinearGroups; ++group) {
      importance[group].resize(sums[group].size());
      fit_.download(sums[group].data(), importance[group]);
    }
    return importance;
  }

  // Fills x_, target_, token_weights_, trace_ and y_ for some samples. A token weighs
  // 1 / |target|^2: an error is as bad as it is large beside what the token carries, because the
  // next norm divides by that. Without it the first token decides alone: in some models it is a
  // thousand times as large as the others.
  void forward(std::span<const int64_t> samples) {
    gather(fit_, *job_.quantized_input, samples, x_);
    gather(fit_, *job_.target, samples, target_);
    const SequenceBatch batch = {static_cast<int64_t>(samples.size()), tokens()};
    token_weights_.resize(static_cast<size_t>(batch.tokens()));
    fit_.inverse_squares(target_.data(), batch.tokens(), hidden(), token_weights_.data());
    y_.resize(x_.size());
    block_.forward(batch, x_, trace_, y_);
  }

  // One batch; returns its loss.
  double step(float rate) {
    for (size_t n = 0; n < roundings_.size(); ++n) {
      fit_.fill_zero(gradients_[n]);
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
    fit_.weighted_difference(y_.data(), target_.data(), token_weights_.data(), tokens, hidden(),
                             losses_.data());
    std::vector<float> losses(losses_.size());
    fit_.download(losses_.data(), losses);
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  }

  BlockJob& job_;
  const AutoRoundOptions& options_;
  Fit fit_;
  BasicDecoderBlock<Fit> block_;
  SampleOrder order_;
  std::array<std::unique_ptr<typename Kit::Rounding>, kBlockLinears> roundings_;
  BasicBlockGradients<Array> gradients_;
  BasicBlockTrace<Array> trace_;
  Array x_, y_, target_;          // [tokens][hidden]
  Array token_weights_, losses_;  // [tokens]
};

inline std::vector<float> head_of(const RefinementJob& job, const LinearWeight& embedding) {
  if (job.config.tie_word_embeddings) return dequantize(embedding.weight);
  const LinearWeight head =
      job.checkpoint.load_linear("lm_head", job.config.vocab_size, job.config.hidden_size);
  std::vector<float> weight = dequantize(head.weight);
  job.checkpoint.release("lm_head");
  return weight;
}

// All blocks at once.
template <typename Kit>
class BasicRefinement : public Refinement {
 public:
  using Fit = typename Kit::Fit;
  using Array = typename Fit::Array;

  explicit BasicRefinement(const RefinementJob& job)
      : job_(job),
        fit_(Kit::fit(job.pool)),
        embedding_(load_embedding(job.checkpoint, job.config)),
        loss_(Kit::loss(
            fit_, job.checkpoint.load_vector("model.norm.weight", job.config.hidden_size),
            static_cast<float>(job.config.rms_norm_eps), head_of(job, embedding_), job.pool)),
        order_(static_cast<int64_t>(job.data.windows.size()), job.seed) {}

  void add_block(BlockWeights original, const BlockSchemes& schemes,
                 BlockRoundings roundings) override {
    auto block = std::make_unique<Block>();
    block->original = std::move(original);
    for (size_t n = 0; n < kBlockLinears; ++n) {
      if (schemes[n].dense()) continue;
      block->roundings[n] = Kit::rounding(fit_, block->original.linears[n], schemes[n],
                                          std::move(roundings[n]), job_.pool);
    }
    BlockWeights weights = block->original;
    if (!decoder_) {
      decoder_ = std::make_unique<BasicDecoderBlock<Fit>>(weights, job_.rope, Kit::fit(job_.pool));
    }
    for (size_t n = 0; n < kBlockLinears; ++n) {
      if (block->roundings[n]) weights.linears[n].weight.clear();
    }
    block->weights = uploaded(fit_, std::move(weights));
    blocks_.push_back(std::move(block));
  }

  void run(const RefineOptions& options) override {
    LOWBIT_CHECK(!blocks_.empty() && options.steps >= 0 && options.rate >= 0, "a refinement of ",
                 blocks_.size(), " blocks in ", options.steps, " steps");
    states_.resize(blocks_.size() + 1);
    for (int64_t i = 0; i < options.steps; ++i) {
      const auto left = static_cast<float>(static_cast<double>(options.steps - i) / options.steps);
      const double loss = step({.number = i + 1,
                                .rate = static_cast<float>(options.rate) * left,
                                .range_rate = static_cast<float>(options.range_rate) * left});
      if (job_.progress) {
        job_.progress(1 - left, concat("divergence ", static_cast<float>(loss)));
      }
    }
  }

  const BlockWeights& original(int64_t index) const override {
    return blocks_.at(static_cast<size_t>(index))->original;
  }

  BlockResult result(int64_t index) const override {
    BlockResult result;
    const Block& block = *blocks_.at(static_cast<size_t>(index));
    for (size_t n = 0; n < kBlockLinears; ++n) {
      if (block.roundings[n]) result[n] = block.roundings[n]->encode();
    }
    return result;
  }

 private:
  struct Block {
    BlockWeights original;
    BasicBlockWeights<Array> weights;  // without those that have a rounding
    std::array<std::unique_ptr<typename Kit::Rounding>, kBlockLinears> roundings;
  };

  // Embeds a batch and gathers its target.
  void start(std::span<const int64_t> samples) {
    const auto tokens = static_cast<int64_t>(job_.data.windows.front().size());
    const int64_t hidden = job_.config.hidden_size, size = tokens * hidden;
    batch_ = {static_cast<int64_t>(samples.size()), tokens};
    for (Array& state : states_) state.resize(batch_.sequences * size);
    embedded_.resize(batch_.sequences * size);
    job_.pool.parallel_for(batch_.sequences, [&](int64_t s, int) {
      const std::vector<int32_t>& ids = job_.data.windows[samples[s]];
      for (int64_t t = 0; t < tokens; ++t) {
        dequantize_row(embedding_.weight, ids[t], embedded_.data() + s * size + t * hidden);
      }
    });
    fit_.upload(embedded_, states_[0].data());
    gather(fit_, job_.target, samples, target_);
  }

  // Gives the decoder the block's weights as they would be stored now.
  void dequantize(Block& block) {
    BasicBlockWeights<Array>& weights = decoder_->weights();
    for (size_t n = 0; n < kBlockLinears; ++n) {
      const auto& linear = block.weights.linears[n];
      weights.linears[n].bias = linear.bias;
      if (block.roundings[n]) {
        block.roundings[n]->dequantize(weights.linears[n].weight);
      } else {
        fit_.copy(linear.weight.data(), weights.linears[n].weight.data(),
                  static_cast<int64_t>(linear.weight.size()));
      }
    }
    weights.input_norm = block.weights.input_norm;
    weights.post_attention_norm = block.weights.post_attention_norm;
    weights.q_norm = block.weights.q_norm;
    weights.k_norm = block.weights.k_norm;
    weights.attention = block.weights.attention;
  }

  // From slopes_ of the block's output to those of its input, x; moves its parameters on the way.
  void backward(Block& block, const Array& x, const AdamStep& step) {
    dequantize(block);
    for (Array& gradient : gradients_) fit_.fill_zero(gradient);
    output_.resize(x.size());
    earlier_slopes_.resize(x.size());
    decoder_->forward(batch_, x, trace_, output_);
    decoder_->backward(x, trace_, slopes_, gradients_, earlier_slopes_);
    for (size_t n = 0; n < kBlockLinears; ++n) {
      if (block.roundings[n]) block.roundings[n]->adam(gradients_[n], step);
    }
    std::swap(slopes_, earlier_slopes_);
  }

  double step(const AdamStep& step) {
    const auto tokens = static_cast<int64_t>(job_.data.windows.front().size());
    start(order_.next(std::max<int64_t>(1, kTokensOfStep / tokens)));
    for (size_t b = 0; b < blocks_.size(); ++b) {
      dequantize(*blocks_[b]);
      decoder_->forward(batch_, states_[b], trace_, states_[b + 1]);
    }
    slopes_.resize(target_.size());
    const double loss = loss_.differentiate(states_.back(), target_, slopes_);
    for (size_t b = blocks_.size(); b-- > 0;) backward(*blocks_[b], states_[b], step);
    return loss;
  }

  RefinementJob job_;
  Fit fit_;
  LinearWeight embedding_;
  typename Kit::Loss loss_;
  SampleOrder order_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::unique_ptr<BasicDecoderBlock<Fit>> decoder_;  // with the weights of one block after another
  SequenceBatch batch_;
  BasicBlockTrace<Array> trace_;
  BasicBlockGradients<Array> gradients_;
  std::vector<float> embedded_;
  std::vector<Array> states_;  // entering each block, and leaving the last
  Array target_, slopes_, earlier_slopes_, output_;
};

template <typename Kit>
class BasicLearning : public Learning {
 public:
  explicit BasicLearning(ThreadPool& pool) : pool_(pool) {}

  void forward(BlockWeights weights, const std::shared_ptr<const RopeTables>& rope,
               const HiddenStates& from, HiddenStates& to) const override {
    auto fit = Kit::fit(pool_);
    BasicDecoderBlock<typename Kit::Fit> block(std::move(weights), rope, Kit::fit(pool_));
    BasicBlockTrace<typename Kit::Fit::Array> trace;
    typename Kit::Fit::Array x, y;
    std::vector<int64_t> samples;
    for (int64_t first = 0; first < from.samples(); first += static_cast<int64_t>(samples.size())) {
      const int64_t most = std::max<int64_t>(1, Kit::kTokensOfForward / from.tokens());
      samples.resize(static_cast<size_t>(std::min(most, from.samples() - first)));
      std::iota(samples.begin(), samples.end(), first);
      gather(fit, from, samples, x);
      y.resize(x.size());
      block.forward({static_cast<int64_t>(samples.size()), from.tokens()}, x, trace, y);
      const int64_t size = from.tokens() * from.hidden_size();
      for (size_t i = 0; i < samples.size(); ++i) {
        fit.download(y.data() + static_cast<int64_t>(i) * size, to.sample(samples[i]));
      }
    }
  }

  BlockResult autoround(BlockJob& job, const AutoRoundOptions& options) const override {
    return Training<Kit>(job, options).run();
  }

  std::unique_ptr<Refinement> refinement(const RefinementJob& job) const override {
    return std::make_unique<BasicRefinement<Kit>>(job);
  }

 private:
  ThreadPool& pool_;
};

}  // namespace lowbit::detail

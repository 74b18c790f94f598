#include "lowbit/quantize/refine.h"

#include <algorithm>
#include <optional>

#include "lowbit/base/check.h"
#include "lowbit/quantize/calibrated_blocks.h"

namespace lowbit {

namespace {

constexpr int64_t kTokensOfStep = 2048;

std::vector<float> head_of(const RefinementJob& job, const LinearWeight& embedding) {
  if (job.config.tie_word_embeddings) return dequantize(embedding.weight);
  const LinearWeight head =
      job.checkpoint.load_linear("lm_head", job.config.vocab_size, job.config.hidden_size);
  std::vector<float> weight = dequantize(head.weight);
  job.checkpoint.release("lm_head");
  return weight;
}

}  // namespace

struct Refinement::Block {
  BlockWeights original;
  std::array<std::optional<LearnedRounding>, kBlockLinears> roundings;
};

Refinement::Refinement(const RefinementJob& job)
    : job_(job),
      embedding_(load_embedding(job.checkpoint, job.config)),
      loss_(job.checkpoint.load_vector("model.norm.weight", job.config.hidden_size),
            static_cast<float>(job.config.rms_norm_eps), head_of(job, embedding_), job.pool),
      order_(static_cast<int64_t>(job.data.windows.size()), job.seed) {}

Refinement::~Refinement() = default;

void Refinement::add_block(BlockWeights original, const BlockSchemes& schemes,
                           BlockRoundings roundings) {
  auto block = std::make_unique<Block>();
  block->original = std::move(original);
  for (size_t n = 0; n < kBlockLinears; ++n) {
    if (schemes[n].dense()) continue;
    block->roundings[n].emplace(block->original.linears[n], schemes[n], std::move(roundings[n]),
                                job_.pool);
  }
  if (!decoder_) decoder_ = std::make_unique<DecoderBlock>(block->original, job_.rope, job_.pool);
  blocks_.push_back(std::move(block));
}

const BlockWeights& Refinement::original(int64_t index) const {
  return blocks_.at(static_cast<size_t>(index))->original;
}

BlockResult Refinement::result(int64_t index) const {
  BlockResult result;
  const Block& block = *blocks_.at(static_cast<size_t>(index));
  for (size_t n = 0; n < kBlockLinears; ++n) {
    if (block.roundings[n]) result[n] = block.roundings[n]->encode();
  }
  return result;
}

void Refinement::run(const RefineOptions& options) {
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

// Embeds a batch and gathers its target.
void Refinement::start(std::span<const int64_t> samples) {
  const auto tokens = static_cast<int64_t>(job_.data.windows.front().size());
  const int64_t hidden = job_.config.hidden_size, size = tokens * hidden;
  batch_ = {static_cast<int64_t>(samples.size()), tokens};
  for (std::vector<float>& state : states_) state.resize(batch_.sequences * size);
  target_.resize(states_[0].size());
  job_.pool.parallel_for(batch_.sequences, [&](int64_t s, int) {
    const std::vector<int32_t>& ids = job_.data.windows[samples[s]];
    for (int64_t t = 0; t < tokens; ++t) {
      dequantize_row(embedding_.weight, ids[t], states_[0].data() + s * size + t * hidden);
    }
    const std::span<const float> target = job_.target.sample(samples[s]);
    std::copy(target.begin(), target.end(), target_.begin() + s * size);
  });
}

// Gives the decoder the block's weights as they would be stored now.
void Refinement::dequantize(Block& block) {
  BlockWeights& weights = decoder_->weights();
  for (size_t n = 0; n < kBlockLinears; ++n) {
    weights.linears[n].bias = block.original.linears[n].bias;
    if (block.roundings[n]) {
      block.roundings[n]->dequantize(weights.linears[n].weight);
    } else {
      weights.linears[n].weight = block.original.linears[n].weight;
    }
  }
  weights.input_norm = block.original.input_norm;
  weights.post_attention_norm = block.original.post_attention_norm;
  weights.q_norm = block.original.q_norm;
  weights.k_norm = block.original.k_norm;
  weights.attention = block.original.attention;
}

// From slopes_ of the block's output to those of its input, x; moves its parameters on the way.
void Refinement::backward(Block& block, const std::vector<float>& x, const AdamStep& step) {
  dequantize(block);
  for (std::vector<float>& gradient : gradients_) std::fill(gradient.begin(), gradient.end(), 0.f);
  output_.resize(x.size());
  earlier_slopes_.resize(x.size());
  decoder_->forward(batch_, x, trace_, output_);
  decoder_->backward(x, trace_, slopes_, gradients_, earlier_slopes_);
  for (size_t n = 0; n < kBlockLinears; ++n) {
    if (block.roundings[n]) block.roundings[n]->adam(gradients_[n], step);
  }
  slopes_.swap(earlier_slopes_);
}

double Refinement::step(const AdamStep& step) {
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

RefineOptions chosen_refinement(RefineOptions options, int bits) {
  // The fewer the bits, the more a step of a rounding changes.
  const RefineOptions usual = bits >= 4   ? RefineOptions{100, 1e-3, 2e-4}
                              : bits == 3 ? RefineOptions{200, 1e-3, 2e-4}
                                          : RefineOptions{200, 2e-4, 1e-4};
  if (options.steps == 0) options.steps = usual.steps;
  if (options.rate == 0) options.rate = usual.rate;
  if (options.range_rate == 0) options.range_rate = usual.range_rate;
  return options;
}

}  // namespace lowbit

#include "lowbit/quantize/smoothquant.h"

#include <algorithm>
#include <cmath>

#include "lowbit/quantize/act_scales.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/quantize/rtn.h"

namespace lowbit {

namespace {

using Maxima = std::array<std::vector<float>, kLinearGroups>;

// maxima[k] = the largest |x| of column k, if it was smaller.
void add_magnitudes(const std::vector<float>& x, std::vector<float>& maxima, ThreadPool& pool) {
  constexpr int64_t kColumns = 64;  // per turn of a thread
  const auto cols = static_cast<int64_t>(maxima.size());
  pool.parallel_for((cols + kColumns - 1) / kColumns, [&](int64_t index, int) {
    const int64_t begin = index * kColumns, end = std::min(cols, begin + kColumns);
    for (const float* row = x.data(); row < x.data() + x.size(); row += cols) {
      for (int64_t k = begin; k < end; ++k) maxima[k] = std::max(maxima[k], std::fabs(row[k]));
    }
  });
}

// Largest |x| of each column over the block's original input, for the two groups that are smoothed.
Maxima measure(BlockJob& job) {
  Maxima maxima;
  for (const LinearGroup group : {kAttentionInput, kMlpInput}) {
    maxima[group].resize(static_cast<size_t>(job.block.hidden));
  }
  const HiddenStates& input = *job.original_input;
  DecoderBlock block(job.block, job.rope, job.pool);
  BlockTrace trace;
  std::vector<float> room(static_cast<size_t>(input.tokens() * input.hidden_size()));
  for (int64_t s = 0; s < input.samples(); ++s) {
    const std::span<float> output = job.output != nullptr ? job.output->sample(s) : std::span(room);
    block.forward({1, input.tokens()}, input.sample(s), trace, output);
    for (const LinearGroup group : {kAttentionInput, kMlpInput}) {
      add_magnitudes(trace.inputs[group], maxima[group], job.pool);
    }
    job.progress(static_cast<double>(s + 1) / static_cast<double>(input.samples()), "");
  }
  return maxima;
}

Maxima look_up(const BlockWeights& block, const ActScales& scales) {
  Maxima maxima;
  for (const int i : {kQ, kGate}) {
    const BlockWeights::Linear& linear = block.linears[i];
    maxima[group_of(i)] = act_scales_of(scales, linear.name, linear.cols);
  }
  return maxima;
}

void smooth(BlockWeights& block, LinearGroup group, const std::vector<float>& act_maxima,
            double alpha) {
  std::vector<float>& norm =
      group == kAttentionInput ? block.input_norm : block.post_attention_norm;
  std::vector<float> weight_maxima(norm.size(), 1e-5f);
  const auto for_weights = [&](const auto& body) {
    for (int i = 0; i < kBlockLinears; ++i) {
      if (group_of(i) != group) continue;
      std::vector<float>& weight = block.linears[i].weight;
      for (size_t at = 0; at < weight.size(); at += norm.size()) {
        for (size_t k = 0; k < norm.size(); ++k) body(k, weight[at + k]);
      }
    }
  };
  for_weights([&](size_t k, float weight) {
    weight_maxima[k] = std::max(weight_maxima[k], std::fabs(weight));
  });
  std::vector<float> scales(norm.size());
  for (size_t k = 0; k < scales.size(); ++k) {
    scales[k] = static_cast<float>(std::pow(std::max(act_maxima[k], 1e-5f), alpha) /
                                   std::pow(weight_maxima[k], 1 - alpha));
    norm[k] /= scales[k];
  }
  for_weights([&](size_t k, float& weight) { weight *= scales[k]; });
}

}  // namespace

CalibrationNeeds SmoothQuant::needs() const {
  const bool measures = !options_.act_scales;
  return {.quantized_input = false, .original_input = measures, .output = measures};
}

BlockResult SmoothQuant::quantize(BlockJob& job) const {
  const Maxima maxima =
      options_.act_scales ? look_up(job.block, *options_.act_scales) : measure(job);
  for (const LinearGroup group : {kAttentionInput, kMlpInput}) {
    smooth(job.block, group, maxima[group], options_.alpha);
  }
  BlockResult result;
  for (int i = 0; i < kBlockLinears; ++i) {
    const BlockWeights::Linear& linear = job.block.linears[i];
    if (job.schemes[i].dense()) continue;
    result[i] = Rtn().quantize({linear.name, linear.rows, linear.cols, linear.weight, &job.pool},
                               job.schemes[i]);
  }
  return result;
}

}  // namespace lowbit

#include "lowbit/quantize/smoothquant.h"

#include <algorithm>
#include <cmath>

#include "lowbit/quantize/input_statistics.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/quantize/rtn.h"

namespace lowbit {

namespace {

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
  const std::vector<LinearGroup> groups = {kAttentionInput, kMlpInput};  // those follow a norm
  const InputStatistics maxima = options_.act_scales
                                     ? stored_maxima(job.block, groups, *options_.act_scales)
                                     : input_maxima(job, groups);
  for (const LinearGroup group : groups) {
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

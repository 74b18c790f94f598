#include "lowbit/quantize/smoothing.h"

#include <algorithm>
#include <cmath>

#include "lowbit/tensor/input_rounding.h"

namespace lowbit {

namespace {

constexpr float kLeast = 1e-5f;

void divide(std::vector<float>& values, const std::vector<float>& scales) {
  for (size_t k = 0; k < values.size(); ++k) values[k] /= scales[k];
}

}  // namespace

std::vector<float> smoothing_scales(const BlockWeights& block, LinearGroup group,
                                    const std::vector<float>& x_maxima, double alpha) {
  const size_t cols = x_maxima.size();
  std::vector<float> inputs(cols, kLeast), weights(cols, kLeast);
  for (size_t k = 0; k < cols; ++k) {
    inputs[k] = std::max(inputs[k], x_maxima[k]);
    for (int i = 0; i < kBlockLinears; ++i) {
      if (group_of(i) != group) continue;
      const std::vector<float>& weight = block.linears[i].weight;
      for (size_t n = k; n < weight.size(); n += cols) {
        weights[k] = std::max(weights[k], std::fabs(weight[n]));
      }
    }
  }
  std::vector<float> scales(cols);
  for (size_t k = 0; k < cols; ++k) {
    scales[k] = static_cast<float>(std::pow(inputs[k], alpha) / std::pow(weights[k], 1 - alpha));
  }
  return scales;
}

void fold_smoothing(BlockWeights& block, LinearGroup group, const std::vector<float>& scales) {
  divide(group == kAttentionInput ? block.input_norm : block.post_attention_norm, scales);
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

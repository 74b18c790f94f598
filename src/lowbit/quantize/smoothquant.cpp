#include "lowbit/quantize/smoothquant.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/quantize/rtn.h"
#include "lowbit/quantize/smoothing.h"
#include "lowbit/tensor/input_rounding.h"

namespace lowbit {

namespace {

constexpr LinearGroup kAll[] = {kAttentionInput, kOutputInput, kMlpInput, kDownInput};

std::vector<float> magnitudes(const std::vector<float>& low, const std::vector<float>& high) {
  std::vector<float> result(low.size());
  for (size_t k = 0; k < result.size(); ++k) {
    result[k] = std::max(std::fabs(low[k]), std::fabs(high[k]));
  }
  return result;
}

// The ranges of the inputs as activation scales tell them.
InputSamples stored_ranges(const BlockWeights& block, const std::vector<LinearGroup>& groups,
                           const ActScales& scales) {
  InputSamples inputs;
  inputs.high = stored_maxima(block, groups, scales);
  inputs.low = inputs.high;
  for (std::vector<float>& low : inputs.low) {
    for (float& value : low) value = -value;
  }
  return inputs;
}

}  // namespace

CalibrationNeeds SmoothQuant::needs() const {
  const bool measures = !options_.act_scales;
  return {.quantized_input = false, .original_input = measures, .output = measures};
}

BlockResult SmoothQuant::quantize(BlockJob& job) const {
  const bool measured = !options_.act_scales;
  std::vector<LinearGroup> needed = {kAttentionInput, kMlpInput};
  for (const QuantScheme& scheme : job.schemes) {
    if (scheme.dense()) continue;
    LOWBIT_CHECK(measured || scheme.input_form != InputForm::kStaticZero,
                 "--act-scales say how large inputs are, not their range: zero points need "
                 "--calibration");
    if (has_static_inputs(scheme)) needed = {std::begin(kAll), std::end(kAll)};
  }
  const InputSamples inputs =
      measured ? sample_inputs(job, 1) : stored_ranges(job.block, needed, *options_.act_scales);
  std::array<std::vector<float>, kLinearGroups> scales;
  for (const LinearGroup group : kAll) {
    scales[group].assign(inputs.low[group].size(), 1.f);
  }
  for (const LinearGroup group : {kAttentionInput, kMlpInput}) {
    scales[group] = smoothing_scales(
        job.block, group, magnitudes(inputs.low[group], inputs.high[group]), options_.alpha);
    fold_smoothing(job.block, group, scales[group]);
  }
  BlockResult result;
  for (int i = 0; i < kBlockLinears; ++i) {
    const BlockWeights::Linear& linear = job.block.linears[i];
    if (job.schemes[i].dense()) continue;
    result[i] = Rtn().quantize({linear.name, linear.rows, linear.cols, linear.weight, &job.pool},
                               job.schemes[i]);
    const LinearGroup group = group_of(i);
    const InputRounding rounding =
        rounding_of(job.schemes[i], inputs.low[group], inputs.high[group], scales[group]);
    result[i].input_scale = rounding.scale;
    result[i].input_zero = rounding.zero;
  }
  return result;
}

}  // namespace lowbit

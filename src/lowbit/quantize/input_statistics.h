// What the inputs of a block's linears look like, for methods that treat large ones apart.
#pragma once

#include <array>
#include <vector>

#include "lowbit/quantize/act_scales.h"
#include "lowbit/quantize/block_quantizer.h"

namespace lowbit {

// One number for each input column of each group of linears: [cols], or empty if not asked for.
using InputStatistics = std::array<std::vector<float>, kLinearGroups>;

// The inputs of all groups: the range of each column, and some tokens spread over all samples.
struct InputSamples {
  InputStatistics low, high;                           // min x[k] and max x[k]
  std::array<std::vector<float>, kLinearGroups> rows;  // [any][cols]
};
// Runs the block over job.original_input, fills job.output if it is there, and reports progress.
// With at least `tokens` rows of each group, if there are as many. The result does not depend on
// the number of threads.
InputSamples sample_inputs(BlockJob& job, int64_t tokens);

// max |x[k]| as an earlier run measured it. Throws as act_scales_of().
InputStatistics stored_maxima(const BlockWeights& block, const std::vector<LinearGroup>& groups,
                              const ActScales& scales);

}  // namespace lowbit

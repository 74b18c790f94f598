// What the inputs of a block's linears look like, for methods that treat large ones apart.
#pragma once

#include <array>
#include <vector>

#include "lowbit/quantize/act_scales.h"
#include "lowbit/quantize/block_quantizer.h"

namespace lowbit {

// One number for each input column of each group of linears: [cols], or empty if not asked for.
using InputStatistics = std::array<std::vector<float>, kLinearGroups>;

// The first two run the block over job.original_input, fill job.output if it is there, and report
// progress. Their results do not depend on the number of threads.
// max |x[k]|
InputStatistics input_maxima(BlockJob& job, const std::vector<LinearGroup>& groups);
// How far and how often a column stands out of its token: the sum over tokens of
// (x[k] / rms of x)^4. Of all groups.
InputStatistics input_prominence(BlockJob& job);
// max |x[k]| as an earlier run measured it. Throws as act_scales_of().
InputStatistics stored_maxima(const BlockWeights& block, const std::vector<LinearGroup>& groups,
                              const ActScales& scales);

}  // namespace lowbit

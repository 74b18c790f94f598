// The largest inputs of a block's linears, for methods that treat large ones apart.
#pragma once

#include <array>
#include <vector>

#include "lowbit/quantize/act_scales.h"
#include "lowbit/quantize/block_quantizer.h"

namespace lowbit {

// max |x| of each input column of each group of linears; [cols], or empty if not asked for.
using InputMaxima = std::array<std::vector<float>, kLinearGroups>;

// Of groups[g] only. From `scales` if there are some, else measured over the block's original
// input, filling job.output on the way; reports progress. Throws as act_scales_of().
InputMaxima input_maxima(BlockJob& job, const std::array<bool, kLinearGroups>& groups,
                         const ActScales* scales);

}  // namespace lowbit

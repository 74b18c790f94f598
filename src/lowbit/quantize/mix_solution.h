// Which option each unit of a mix takes, given what they cost.
#pragma once

#include "lowbit/quantize/mix_plan.h"
#include "lowbit/quantize/pipeline.h"

namespace lowbit {

// The scheme that the run's own bits, group and symmetry say: what uniform layers would have.
QuantScheme mix_reference(const QuantizeOptions& options);

// Throws kInvalidArgument if the goal is a size that is less than the least possible. rest_bytes:
// of tensors that stay in 16 bits.
void check_mix_size(const MixPlan& mix, const QuantizeOptions& options, int64_t rest_bytes);

// Sets every unit's choice and why, the goal and the notices, from the options' measurements.
// Throws kInvalidArgument if the goal is out of reach, saying what the least and the most are.
void solve_mix(MixPlan& mix, const QuantizeOptions& options, int64_t rest_bytes);

}  // namespace lowbit

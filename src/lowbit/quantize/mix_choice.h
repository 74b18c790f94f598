// `--method auto`: measures what each scheme costs each layer, in time on this machine and in
// predictions on calibration data, and chooses the mix for a goal:
//
//   size (in bits or bytes)       the least loss, not slower than uniform layers of that size
//   largest rise of perplexity    the fastest mix within it (the smallest, if speed is not known)
//
// Losses add up to second order (sensitivity.h), which makes it a knapsack problem (knapsack.h).
// They are of weights rounded one by one: methods that know the inputs do better, by a factor that
// does not change the choice much.
#pragma once

#include "lowbit/base/file.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/quantize/calibration.h"
#include "lowbit/quantize/mix_plan.h"
#include "lowbit/quantize/plan.h"

namespace lowbit {

// The references outlive the call.
struct MixJob {
  const Checkpoint& checkpoint;
  const ModelConfig& config;
  const Plan& plan;
  const QuantizeOptions& options;  // method_options.automatic says what is wanted
  const CalibrationData& data;
  ThreadPool& pool;
  fs::path spill;  // folder for what does not fit into options.memory_bytes
};

// The units of a plan with their possible schemes and sizes, nothing measured. Throws
// kInvalidArgument for a scheme that does not exist, or none that fits a layer.
MixPlan outline_mix(const ModelConfig& config, const Plan& plan, const QuantizeOptions& options);

// Throws kInvalidArgument if the goal is out of reach, saying what the least and the most are.
MixPlan choose_mix(const MixJob& job);

// Bytes of a plan's tensors that are not quantized.
int64_t bytes_in_16_bits(const ModelConfig& config, const Plan& plan);

}  // namespace lowbit

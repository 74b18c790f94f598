// The pass over the whole model that follows learned rounding: all roundings and ranges of all
// blocks at once, by Adam, against the divergence of the model's predictions from the original
// model's. docs/quality.md says what it brings.
//
// Memory: the blocks' weights in fp32 and three numbers more for each of them, and the hidden
// states of one step at every block. Traces are computed again on the way back.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/calibration.h"
#include "lowbit/quantize/learned_rounding.h"
#include "lowbit/quantize/method_options.h"

namespace lowbit {

using BlockRoundings = std::array<RoundingState, kBlockLinears>;
using BlockSchemes = std::array<QuantScheme, kBlockLinears>;

struct RefinementJob {
  // The original model.
  const Checkpoint& checkpoint;
  const ModelConfig& config;
  const CalibrationData& data;
  const HiddenStates& target;  // what its last block makes of the data
  std::shared_ptr<const RopeTables> rope;
  ThreadPool& pool;
  uint64_t seed = 0;
  std::function<void(double done, const std::string& note)> progress;
};

class Refinement {
 public:
  virtual ~Refinement() = default;

  // Blocks in order, before run(): their original weights, and where learning stood. Linears whose
  // scheme is dense stay as they are.
  virtual void add_block(BlockWeights original, const BlockSchemes& schemes,
                         BlockRoundings roundings) = 0;
  virtual void run(const RefineOptions& options) = 0;

  virtual const BlockWeights& original(int64_t index) const = 0;
  virtual BlockResult result(int64_t index) const = 0;
};

// Steps and rates that suit some number of bits, where options leave them open (0).
RefineOptions chosen_refinement(RefineOptions options, int bits);

}  // namespace lowbit

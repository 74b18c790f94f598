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
#include <vector>

#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/calibration.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/divergence_loss.h"
#include "lowbit/quantize/learned_rounding.h"
#include "lowbit/quantize/method_options.h"
#include "lowbit/quantize/sample_order.h"

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
  explicit Refinement(const RefinementJob& job);
  ~Refinement();

  // Blocks in order, before run(): their original weights, and where learning stood. Linears whose
  // scheme is dense stay as they are.
  void add_block(BlockWeights original, const BlockSchemes& schemes, BlockRoundings roundings);
  void run(const RefineOptions& options);

  const BlockWeights& original(int64_t index) const;
  BlockResult result(int64_t index) const;

 private:
  struct Block;
  double step(const AdamStep& step);
  void start(std::span<const int64_t> samples);
  void dequantize(Block& block);
  void backward(Block& block, const std::vector<float>& x, const AdamStep& step);

  RefinementJob job_;
  LinearWeight embedding_;
  DivergenceLoss loss_;
  SampleOrder order_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::unique_ptr<DecoderBlock> decoder_;  // with the weights of one block after another
  SequenceBatch batch_;
  BlockTrace trace_;
  BlockGradients gradients_;
  std::vector<std::vector<float>> states_;  // entering each block, and leaving the last
  std::vector<float> target_, slopes_, earlier_slopes_, output_;
};

// Steps and rates that suit some number of bits, where options leave them open (0).
RefineOptions chosen_refinement(RefineOptions options, int bits);

}  // namespace lowbit

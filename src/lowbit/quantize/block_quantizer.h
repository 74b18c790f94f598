// BlockQuantizer: a method that needs to see what flows through the model. It gets the decoder
// blocks one after another, each with its calibration activations, and never sees files, models or
// devices. See quantizer.h for methods that look at one weight alone.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "lowbit/base/thread_pool.h"
#include "lowbit/model/rope.h"
#include "lowbit/quantize/block_weights.h"
#include "lowbit/quantize/hidden_states.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit {

struct DeviceBlock;    // device_blocks.h
struct RoundingState;  // learned_rounding.h
class Learning;        // learning.h

// What a method wants to be given for each block. Each set costs 4 bytes times samples, tokens and
// hidden size, and each path one forward pass of the model.
struct CalibrationNeeds {
  bool quantized_input = true;  // what comes through the finished blocks, as they were written
  bool original_input = false;  // what comes through the original blocks
  bool target = false;          // what the original block makes of its original input
  bool output = false;          // the same, filled in by the method, which computes it anyway
};

struct BlockJob {
  int64_t index = 0;  // of the block in the model
  // The original weights. A method may change norms, weights and biases as long as the block
  // computes the same: what it leaves is written (in 16 bits) and, for the linears that it
  // quantizes, replaced by the result.
  BlockWeights& block;
  // What is to be made of each linear, for_shape() applied. Dense: it stays in 16 bits.
  std::array<QuantScheme, kBlockLinears> schemes;
  std::shared_ptr<const RopeTables> rope;  // positions: at least the tokens of a sample
  // Null if not asked for.
  const HiddenStates* quantized_input = nullptr;
  const HiddenStates* original_input = nullptr;
  const HiddenStates* target = nullptr;
  HiddenStates* output = nullptr;
  // Where the block is if not on the host; null: there. Only methods with on_device are given one,
  // and then no states and no weights here.
  DeviceBlock* device = nullptr;
  ThreadPool& pool;
  const Learning& learning;  // where to fit weights
  uint64_t seed = 0;         // the same for this block in every run
  // By BlockLinear: where a method that learns leaves its parameters, for a pass over the whole
  // model to go on from. Null if there will be none.
  std::array<RoundingState, kBlockLinears>* roundings = nullptr;
  // Shows how much of the block is done, 0 to 1, with a short note such as "loss 0.0012".
  std::function<void(double done, const std::string& note)> progress;
  // Something the user should know when the run is over, said once: "damping raised to 0.02".
  std::function<void(const std::string& message)> notice;
};

// By BlockLinear. Left empty (rows 0) for linears whose scheme is dense.
using BlockResult = std::array<QTensor, kBlockLinears>;

class BlockQuantizer {
 public:
  virtual ~BlockQuantizer() = default;

  virtual CalibrationNeeds needs() const = 0;
  // Each weight of exactly its scheme, with scales that formats hold (fp16 for
  // integer codes). The result depends on the job alone, never on the number of threads. Throws
  // kInvalidArgument naming the linear if a weight is not finite, a scale overflows, or the group
  // size does not divide the columns.
  virtual BlockResult quantize(BlockJob& job) const = 0;
};

}  // namespace lowbit

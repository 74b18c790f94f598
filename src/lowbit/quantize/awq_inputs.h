// What AWQ keeps of a block's calibration activations: means over all tokens, and some tokens to
// measure errors with.
#pragma once

#include <array>
#include <vector>

#include "lowbit/quantize/block_quantizer.h"

namespace lowbit {

// Tokens that losses are measured on: more cost time and change little.
constexpr int64_t kAwqLossTokens = 16384;
constexpr int64_t kAwqClipGroup = 512;  // larger groups are not clipped

// Some tokens from all samples: what enters the MLP (before its norm) and what the block returns.
struct AwqTokens {
  int64_t count = 0;
  std::vector<float> residual, output;  // [count][hidden]
};

struct AwqInputs {
  BlockWeights original;
  std::array<std::vector<float>, kLinearGroups> means;  // mean |x| of each column
  // Some of each group's inputs, in pieces of [any][cols]; of the attention's input and the MLP's
  // there are fewer: only clipping asks for them.
  std::array<std::vector<std::vector<float>>, kLinearGroups> samples;
  int64_t tokens = 0;                         // of a sequence
  std::vector<int64_t> sequences;             // whole samples that the attention is measured on
  std::vector<std::vector<float>> residuals;  // [sequences]: x + the attention's output
  std::vector<AwqTokens> mlp;
};

// One pass of the block over its original input.
AwqInputs collect_awq_inputs(BlockJob& job);

}  // namespace lowbit

// Speed of attention alone: decoding sequences that stand at some context, and prompts. Layers of
// the cache take turns, so that no keys are in a processor's cache.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "lowbit/runtime/backend.h"

namespace lowbit {

struct AttentionBenchOptions {
  AttentionShape shape{32, 8, 128, 0};
  DType kv_dtype = DType::kF16;
  std::vector<int64_t> sequences = {1, 8, 32};   // decoded side by side
  std::vector<int64_t> contexts = {1024, 8192};  // of each
  std::vector<int64_t> prompts = {1024, 4096};   // tokens of one sequence
  double seconds = 0.2;                          // of each row, at least
};

struct AttentionRow {
  int64_t sequences = 0;  // 0: a prompt
  int64_t tokens = 0;     // context of each sequence, or of the prompt
  double seconds = 0;     // of one layer, median
  double bytes = 0;       // keys and values with their scales, each read once
  double operations = 0;  // of causal attention

  double gb_s() const { return bytes / seconds / 1e9; }
  double tflop_s() const { return operations / seconds / 1e12; }
};

// Calls done(row) after each row: every number of sequences at every context, then the prompts.
// Decoding includes rotation and storing of the new key; prompts do not. Throws kInvalidArgument if
// options are out of range.
void measure_attention(Backend& backend, const AttentionBenchOptions& options,
                       const std::function<void(const AttentionRow&)>& done);

}  // namespace lowbit

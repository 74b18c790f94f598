// The quantize pipeline: a checkpoint in, a checkpoint out, one block at a time.
//
// Output is built in OUT.partial: one file per finished unit (embedding, each block, head), each
// recorded in a journal once it is durable. A run that finds a partial folder of the same input
// and options goes on after the last recorded unit; OUT appears by one rename at the end, so it is
// never half a checkpoint, and its bytes do not depend on interruptions.
#pragma once

#include <string>
#include <vector>

#include "lowbit/checkpoint/checkpoint.h"

namespace lowbit {

struct QuantizeOptions {
  std::string method = "rtn";
  int bits = 4;
  int64_t group_size = 64;  // -1: one group per row
  bool symmetric = true;
  std::string format =
      "gptq";  // "gptq", "compressed-tensors", "gguf[:TYPE]", "safetensors[:DTYPE]"
  std::vector<std::string> skip = {"lm_head"};  // modules kept in 16 bits: name or suffix
  bool force = false;                           // replace a non-empty OUT
  int threads = 0;
};

struct QuantizeSummary {
  int64_t linears = 0;         // quantized
  int64_t bytes = 0;           // of all files in OUT
  double bits_per_weight = 0;  // of the quantized linears, scales included
  bool resumed = false;
  double seconds = 0;
};

// Throws kInvalidArgument for impossible combinations (listing the possible), kIo for files.
QuantizeSummary quantize_checkpoint(const std::string& model, const std::string& out,
                                    const QuantizeOptions& options);

}  // namespace lowbit

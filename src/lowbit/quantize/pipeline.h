// The quantize pipeline: a checkpoint in, a checkpoint out, one block at a time.
//
// Output is built in OUT.partial: one file per finished unit (embedding, each block, head), each
// recorded in a journal once it is durable. A run that finds a partial folder of the same input
// and options goes on after the last recorded unit; OUT appears by one rename at the end, so it is
// never half a checkpoint, and its bytes do not depend on interruptions or threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/quantize/calibration.h"
#include "lowbit/quantize/method_options.h"

namespace lowbit {

struct QuantizeOptions {
  std::string method = "rtn";
  int bits = 4;
  int64_t group_size = 0;  // -1: one group per row; 0: the format's usual (64; GGUF: the type's)
  bool symmetric = true;
  int input_bits = 0;  // of the linears' inputs: 4, 8, 16 (not rounded); 0: the method's usual
  InputForm input_form = InputForm::kToken;  // kStatic and kStaticZero: smoothquant only
  // "gptq", "compressed-tensors", "gguf[:TYPE]" (gguf_recipe.h), "safetensors[:f16|bf16]"; empty:
  // the method's. A GGUF type or "safetensors" decides bits, groups and symmetry by itself.
  std::string format;
  std::vector<std::string> skip = {"lm_head"};  // modules kept in 16 bits: name or suffix
  bool force = false;                           // replace a non-empty OUT, discard a partial one
  CalibrationOptions calibration;               // of methods that need it
  MethodOptions method_options;
  std::string act_scales;                   // file that stands for calibration data, if any
  int64_t memory_bytes = int64_t{4} << 30;  // calibration activations beyond it go to OUT.partial
  std::string backend = "cpu";  // or "cuda": where methods compute (quantize_device.h, learning.h)
  int threads = 0;
  double commit_seconds = 5;            // work that a crash may cost, besides the unit in hand
  int64_t shard_bytes = 5'000'000'000;  // of one safetensors file, at most (one tensor at least)
};

struct QuantizeSummary {
  int64_t linears = 0;         // quantized
  int64_t bytes = 0;           // of all files in OUT
  double bits_per_weight = 0;  // of the quantized linears, scales included
  bool resumed = false;
  std::vector<std::string> notices;  // what the user should know
  double seconds = 0;
};

// OUT is a folder; for GGUF, a file if its name ends in ".gguf", else a folder with model.gguf.
// Throws kInvalidArgument for impossible combinations (listing the possible), kIo for files.
QuantizeSummary quantize_checkpoint(const std::string& model, const std::string& out,
                                    const QuantizeOptions& options);

}  // namespace lowbit

// A Hugging Face config.json document for a GGUF file.
#pragma once

#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/checkpoint/gguf.h"

namespace lowbit {

// What the tensors say and the metadata does not.
struct GgufFacts {
  int64_t vocab_size = 0;  // rows of token_embd
  bool tied = false;       // no output.weight
  bool attention_bias = false;
  bool mlp_bias = false;
  std::vector<double> rope_factors;  // rope_freqs.weight; empty if absent
};

// Architectures llama, qwen2 and qwen3. Throws kUnsupported naming another, kCorruptFile naming a
// missing or impossible key.
Json gguf_config(const GgufMetadata& metadata, const GgufFacts& facts);

}  // namespace lowbit

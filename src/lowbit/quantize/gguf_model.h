// A model's config in GGUF's terms: metadata keys and rope factors (llama.cpp's conventions).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lowbit/checkpoint/gguf.h"
#include "lowbit/model/config.h"

namespace lowbit {

using GgufPairs = std::vector<std::pair<std::string, GgufValue>>;

// "llama" for mistral too. Throws kUnsupported for a family that has no GGUF architecture here.
std::string gguf_architecture(const ModelConfig& config);

// general.* and the architecture's keys. `file_type` is llama.cpp's llama_ftype.
GgufPairs gguf_model_metadata(const ModelConfig& config, const std::string& name,
                              uint32_t file_type);

// Divisors of inv_freq for the tensor rope_freqs.weight, [head_dim / 2]; empty without scaling by
// frequency.
std::vector<float> gguf_rope_factors(const ModelConfig& config);

}  // namespace lowbit

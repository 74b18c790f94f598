// A model in GGUF's terms: metadata keys, tensor names, row order (llama.cpp's conventions).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lowbit/checkpoint/gguf.h"
#include "lowbit/model/config.h"

namespace lowbit {

using GgufPairs = std::vector<std::pair<std::string, GgufValue>>;

// general.* and the architecture's keys. `type` is the ggml type of most weights. Throws
// kUnsupported for a family that has no GGUF architecture here.
GgufPairs gguf_model_metadata(const ModelConfig& config, const std::string& name,
                              const std::string& type);

// "model.layers.3.mlp.up_proj.weight" is "blk.3.ffn_up.weight". Throws kUnsupported.
std::string gguf_tensor_name(const std::string& hf_name);

// The row of the HF weight that is row `row` of the GGUF one. llama.cpp rotates neighbouring rows
// of q and k in the llama architecture, HF rows half a head apart: row 2i + r of a head is HF's row
// r * head_dim / 2 + i. Other modules and architectures keep their order.
int64_t gguf_source_row(const ModelConfig& config, const std::string& module, int64_t row);

// Divisors of inv_freq for the tensor rope_freqs.weight, [head_dim / 2]; empty without scaling by
// frequency.
std::vector<float> gguf_rope_factors(const ModelConfig& config);

}  // namespace lowbit

// A Hugging Face folder: config.json, safetensors in any format of the table, tokenizer files.
#pragma once

#include <memory>
#include <string>

#include "lowbit/checkpoint/checkpoint.h"

namespace lowbit {

// Throws Error naming the missing, contradictory or unsupported part.
std::unique_ptr<Checkpoint> open_hf_checkpoint(const std::string& folder);

// The description of a checkpoint's quantization: config.json's quantization_config or
// compression_config, else a quantize_config.json or quant_config.json document (null: absent),
// whose quant_method is filled in when it is left out. Null: nothing is quantized.
Json find_quantization_config(const Json& config, const Json& quantize_config,
                              const Json& quant_config);

}  // namespace lowbit

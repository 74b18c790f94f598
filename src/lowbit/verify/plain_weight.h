// A second reading of stored weights: every element by itself, from the formulas that the formats
// document. It shares no code with checkpoint/formats, so that a mistake there cannot hide here.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "lowbit/base/json.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/checkpoint/gguf.h"

namespace lowbit {

// Element [n][k] of a weight. May be called from several threads.
using PlainWeight = std::function<float(int64_t n, int64_t k)>;

// A quantized module of a Hugging Face folder in `format` (CheckpointFormat::name). Empty if there
// is no second reading of how it is stored. Throws kCorruptFile if a tensor is missing; an element
// outside of its tensor throws when it is read.
PlainWeight plain_weight(const TensorSource& source, const Json& quantization_config,
                         const std::string& format, const std::string& module);

// A 2-D tensor of a GGUF file by its Hugging Face name ("model.layers.0.mlp.up_proj.weight"), rows
// in Hugging Face's order; the file must outlive it. Empty if the file has no such tensor, or there
// is no second reading of its type.
PlainWeight plain_gguf_weight(const GgufContents& contents, std::span<const uint8_t> file,
                              const std::string& hf_name);

}  // namespace lowbit

// The small files of a Hugging Face folder that are made from the source checkpoint.
#pragma once

#include "lowbit/base/file.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"

namespace lowbit {

// config.json for weights of dtype "F16" or "BF16", without quantization. Throws kUnsupported if
// the source's rope factors are not those of a rope type that config.json can name.
Json hf_config(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& dtype);

// The tokenizer's files and generation_config.json: copied byte for byte from a folder, made from
// the checkpoint's tokenizer otherwise.
void copy_tokenizer(const Checkpoint& checkpoint, const fs::path& result);

}  // namespace lowbit

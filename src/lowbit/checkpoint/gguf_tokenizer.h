// The tokenizer in a GGUF file's metadata as a TokenizerSpec, and back.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lowbit/checkpoint/gguf.h"
#include "lowbit/tokenizer/tokenizer_spec.h"

namespace lowbit {

// tokenizer.ggml.model "gpt2" (byte-level BPE; tokenizer.ggml.pre names the pre-tokenizer) and
// "llama" (SentencePiece: merges are derived from the scores). Throws kUnsupported naming another.
TokenizerSpec tokenizer_from_gguf(const GgufMetadata& metadata);

// tokenizer.ggml.* and tokenizer.chat_template for write_gguf. Throws kUnsupported if llama.cpp has
// no name for the pre-tokenizer.
std::vector<std::pair<std::string, GgufValue>> tokenizer_to_gguf(const TokenizerSpec& spec);

}  // namespace lowbit

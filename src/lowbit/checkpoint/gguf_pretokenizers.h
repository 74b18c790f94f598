// llama.cpp's names for pre-tokenizers (tokenizer.ggml.pre) and the components of tokenizer.json
// that they stand for.
#pragma once

#include <string>
#include <vector>

#include "lowbit/base/json.h"

namespace lowbit {

struct GgufPreTokenizer {
  std::vector<std::string> names;  // the first is the one to write
  Json pre_tokenizer;
  bool ignore_merges = false;
  bool nfc = false;      // the family's files have the normalizer NFC
  bool add_bos = false;  // where tokenizer.ggml.add_bos_token does not say
};

const std::vector<GgufPreTokenizer>& gguf_pre_tokenizers();

// The row of a name; null if it is unknown.
const GgufPreTokenizer* find_gguf_pre_tokenizer(const std::string& name);
// The row that means this component, the one with the same normalizer if there are two; null if
// llama.cpp has no name for it.
const GgufPreTokenizer* find_gguf_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges,
                                                bool nfc);

}  // namespace lowbit

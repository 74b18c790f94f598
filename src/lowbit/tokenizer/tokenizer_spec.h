// TokenizerSpec: a tokenizer as data, in the terms of Hugging Face's tokenizer.json. Files in any
// format become one of these; Tokenizer is built from it and tokenizer.json is written from it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lowbit/base/json.h"

namespace lowbit {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;
  bool special = true;
};

struct TokenizerSpec {
  // BPE model. vocab[id] is the piece as tokenizer.json spells it (byte-level pieces in the
  // byte-to-unicode alphabet); ids that the model does not define are empty strings.
  std::vector<std::string> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::string unk_token;                                    // empty: none
  bool byte_fallback = false;
  bool fuse_unk = false;
  bool ignore_merges = false;
  std::vector<AddedToken> added_tokens;

  // Components as tokenizer.json has them; null where absent.
  Json normalizer;
  Json pre_tokenizer;
  Json post_processor;
  Json decoder;

  // From tokenizer_config.json, or GGUF metadata.
  std::string bos_token;  // content; empty: none
  std::string eos_token;
  std::string unk_content;
  std::string pad_token;
  std::string chat_template;  // empty: none
};

// Reads tokenizer.json (required) with tokenizer_config.json, special_tokens_map.json and
// chat_template.jinja (each optional) of a checkpoint folder. Throws kIo, kCorruptFile or
// kUnsupported (a model that is not BPE, an unknown component: named).
TokenizerSpec read_tokenizer_spec(const std::string& folder);

// The spec of a tokenizer.json document. `origin` names it in errors.
TokenizerSpec parse_tokenizer_json(const Json& document, const std::string& origin);

// tokenizer.json and tokenizer_config.json as transformers reads them.
std::string tokenizer_json(const TokenizerSpec& spec);
std::string tokenizer_config_json(const TokenizerSpec& spec);

}  // namespace lowbit

// A byte-level tokenizer of 128 ids without merges, to go with tiny models: specials, printable
// ASCII, space, newline, and the two bytes of U+00E9.
#pragma once

#include <string>

#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit::test {

constexpr int32_t kTinyBos = 1, kTinyEos = 2;

inline TokenizerSpec tiny_tokenizer_spec(bool add_bos = false) {
  TokenizerSpec spec;
  spec.vocab = {"<unk>", "<s>", "</s>"};
  for (char byte = '!'; byte <= '~'; ++byte) spec.vocab.emplace_back(1, byte);
  for (const char* piece : {"\u0120", "\u010a", "\u00c3", "\u00a9"}) spec.vocab.push_back(piece);
  for (const char* content : {"<unk>", "<s>", "</s>"}) {
    AddedToken token;
    token.id = static_cast<int32_t>(spec.added_tokens.size());
    token.content = content;
    spec.added_tokens.push_back(token);
  }
  spec.bos_token = "<s>";
  spec.eos_token = "</s>";
  spec.pre_tokenizer = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  spec.decoder = {{"type", "ByteLevel"}};
  if (add_bos) {
    spec.post_processor = Json::parse(R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}})");
  }
  return spec;
}

}  // namespace lowbit::test

// A conversation as the model wants to see it: chat template, then token ids.
#pragma once

#include <vector>

#include "lowbit/tokenizer/chat_template.h"
#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit::app {

class ChatPrompt {
 public:
  // Throws kUnsupported if the model has no chat template. The tokenizer must outlive it.
  ChatPrompt(const TokenizerSpec& spec, const Tokenizer& tokenizer);

  // The rendered text; templates write BOS themselves.
  std::string render(const OrderedJson& messages) const;
  std::vector<int32_t> encode(const OrderedJson& messages) const;

 private:
  const TokenizerSpec& spec_;
  const Tokenizer& tokenizer_;
  ChatTemplate template_;
};

}  // namespace lowbit::app

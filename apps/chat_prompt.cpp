#include "chat_prompt.h"

#include "lowbit/base/check.h"

namespace lowbit::app {

namespace {

const std::string& source_of(const TokenizerSpec& spec) {
  LOWBIT_CHECK_KIND(!spec.chat_template.empty(), ErrorKind::kUnsupported,
                    "this model has no chat template; use lowbit run without --chat");
  return spec.chat_template;
}

}  // namespace

ChatPrompt::ChatPrompt(const TokenizerSpec& spec, const Tokenizer& tokenizer)
    : spec_(spec), tokenizer_(tokenizer), template_(source_of(spec)) {}

std::string ChatPrompt::render(const OrderedJson& messages) const {
  ChatTemplateInputs inputs;
  inputs.messages = messages;
  inputs.bos_token = spec_.bos_token;
  inputs.eos_token = spec_.eos_token;
  inputs.unk_token = spec_.unk_content;
  inputs.pad_token = spec_.pad_token;
  return template_.render(inputs);
}

std::vector<int32_t> ChatPrompt::encode(const OrderedJson& messages) const {
  return tokenizer_.encode(render(messages), {.add_special_tokens = false});
}

}  // namespace lowbit::app

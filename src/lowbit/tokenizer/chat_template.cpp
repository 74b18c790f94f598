#include "lowbit/tokenizer/chat_template.h"

#include "lowbit/jinja/template.h"

namespace lowbit {

struct ChatTemplate::Impl {
  explicit Impl(const std::string& source) : parsed(source) {}
  jinja::Template parsed;
};

ChatTemplate::ChatTemplate(const std::string& source) : impl_(std::make_unique<Impl>(source)) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const ChatTemplateInputs& inputs) const {
  std::vector<std::pair<std::string, OrderedJson>> variables = {
      {"messages", inputs.messages},
      {"tools", inputs.tools},
      {"documents", inputs.documents},
      {"add_generation_prompt", inputs.add_generation_prompt},
  };
  const std::pair<const char*, const std::string*> tokens[] = {
      {"bos_token", &inputs.bos_token},
      {"eos_token", &inputs.eos_token},
      {"unk_token", &inputs.unk_token},
      {"pad_token", &inputs.pad_token},
  };
  for (const auto& [name, text] : tokens) {
    if (!text->empty()) variables.emplace_back(name, *text);
  }
  for (const auto& [name, value] : inputs.extra.items()) variables.emplace_back(name, value);
  return impl_->parsed.render(variables, inputs.now);
}

}  // namespace lowbit

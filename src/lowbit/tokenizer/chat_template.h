// Chat templates: Jinja as Hugging Face renders it (trim_blocks, lstrip_blocks, tojson,
// raise_exception, strftime_now), bounded in steps, memory, depth and output. Messages are given to
// the template as they are.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>

#include "lowbit/base/json.h"

namespace lowbit {

struct ChatTemplateInputs {
  OrderedJson messages = OrderedJson::array();  // [{"role": ..., "content": ...}, ...]
  OrderedJson tools;                            // null: none (the template sees `tools` as none)
  OrderedJson documents;                        // null: none
  bool add_generation_prompt = true;
  // Empty ones are left undefined, as Hugging Face leaves out what a tokenizer does not have.
  std::string bos_token;
  std::string eos_token;
  std::string unk_token;
  std::string pad_token;
  OrderedJson extra = OrderedJson::object();  // further variables (chat_template_kwargs)
  std::optional<std::time_t> now;             // what strftime_now sees; absent: the clock
};

class ChatTemplate {
 public:
  // Throws kUnsupported or kCorruptFile with line and column for what cannot be parsed.
  explicit ChatTemplate(const std::string& source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // Throws kInvalidArgument with the template's own message on raise_exception, kUnsupported or
  // kCorruptFile with line and column on errors and exceeded limits.
  std::string render(const ChatTemplateInputs& inputs) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lowbit

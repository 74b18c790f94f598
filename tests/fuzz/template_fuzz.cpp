// libFuzzer: the input is a template, rendered with a small fixed context.
#include <cstdint>
#include <string>

#include "lowbit/base/check.h"
#include "lowbit/tokenizer/chat_template.h"

namespace {

lowbit::ChatTemplateInputs inputs() {
  lowbit::ChatTemplateInputs inputs;
  inputs.messages = lowbit::OrderedJson::parse(R"([
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Grüße 😀"}]},
    {"role": "assistant", "content": null, "tool_calls": [
      {"type": "function", "function": {"name": "f", "arguments": {"x": 1.5, "y": [true, null]}}}]},
    {"role": "tool", "content": "{}", "name": "f"}])");
  inputs.tools = lowbit::OrderedJson::parse(R"([{"type": "function", "function": {"name": "f"}}])");
  inputs.bos_token = "<s>";
  inputs.now = 0;
  return inputs;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const lowbit::ChatTemplateInputs kInputs = inputs();
  try {
    const lowbit::ChatTemplate chat(std::string(reinterpret_cast<const char*>(data), size));
    chat.render(kInputs);
  } catch (const lowbit::Error&) {
  }
  return 0;
}

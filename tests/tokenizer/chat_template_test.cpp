#include "lowbit/tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"

namespace lowbit {
namespace {

ChatTemplateInputs hello() {
  ChatTemplateInputs inputs;
  inputs.messages = OrderedJson::parse(R"([{"role": "user", "content": "Hello"}])");
  return inputs;
}

std::string message_of(const std::string& source, ErrorKind kind) {
  try {
    ChatTemplate(source).render(hello());
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << source << " rendered";
  return "";
}

TEST(ChatTemplate, RendersMessagesAndTheGenerationPrompt) {
  const ChatTemplate chat(
      "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
      "{% if add_generation_prompt %}<|assistant|>{% endif %}");
  ChatTemplateInputs inputs = hello();
  EXPECT_EQ(chat.render(inputs), "<|user|>Hello<|assistant|>");
  inputs.add_generation_prompt = false;
  EXPECT_EQ(chat.render(inputs), "<|user|>Hello");
}

TEST(ChatTemplate, SeesTokensToolsAndExtraVariables) {
  ChatTemplateInputs inputs = hello();
  inputs.bos_token = "<s>";
  inputs.extra["enable_thinking"] = true;
  EXPECT_EQ(ChatTemplate("{{ bos_token }}{{ eos_token is defined }}{{ tools is none }}{{ documents "
                         "is none }}{{ enable_thinking }}")
                .render(inputs),
            "<s>FalseTrueTrueTrue");
}

TEST(ChatTemplate, TellsTheTemplatesOwnRefusal) {
  EXPECT_EQ(
      message_of("{{ raise_exception('roles must alternate') }}", ErrorKind::kInvalidArgument),
      "roles must alternate");
}

TEST(ChatTemplate, NamesWhatIsUnsupportedAndWhere) {
  const std::string include = message_of("a\n  {% include 'x' %}", ErrorKind::kUnsupported);
  EXPECT_NE(include.find("'include'"), std::string::npos) << include;
  EXPECT_NE(include.find("line 2, column 6"), std::string::npos) << include;
  const std::string filter = message_of("{{ 1|urlize }}", ErrorKind::kUnsupported);
  EXPECT_NE(filter.find("'urlize'"), std::string::npos) << filter;
  EXPECT_NE(filter.find("line 1, column 6"), std::string::npos) << filter;
}

TEST(ChatTemplate, PlacesErrorsOfSyntaxAndOfRendering) {
  EXPECT_NE(message_of("é{% if %}", ErrorKind::kCorruptFile).find("line 1, column 8"),
            std::string::npos);
  EXPECT_NE(message_of("\n\n{{ messages[0].nope.x }}", ErrorKind::kCorruptFile).find("line 3"),
            std::string::npos);
  EXPECT_NE(message_of("{% nope %}", ErrorKind::kCorruptFile).find("unknown tag 'nope'"),
            std::string::npos);
}

TEST(ChatTemplate, RunsDoStatements) {
  EXPECT_EQ(ChatTemplate("{% do messages[0].keys() %}x").render(hello()), "x");
}

}  // namespace
}  // namespace lowbit

// Small templates, and real chat templates, against what Python's jinja2 makes of them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>

#include "lowbit/base/file.h"
#include "lowbit/jinja/template.h"
#include "support/hash.h"
#include "support/paths.h"

namespace lowbit {
namespace {

using Variables = std::vector<std::pair<std::string, OrderedJson>>;

// Golden times are in UTC.
class JinjaGolden : public testing::Test {
 protected:
  JinjaGolden() {
    setenv("TZ", "UTC", 1);
    tzset();
  }
};

OrderedJson read_golden(const char* name) {
  const std::string path = test::golden(name);
  return parse_ordered_json(read_file(path, limits::kConfigBytes), path);
}

Variables variables_of(const OrderedJson& object) {
  Variables variables;
  for (const auto& [name, value] : object.items()) variables.emplace_back(name, value);
  return variables;
}

// "=" and the output, "!" and the message of raise_exception, or "error".
std::string outcome(const std::string& source, const Variables& variables, std::time_t now) {
  try {
    return concat("=", jinja::Template(source).render(variables, now));
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInvalidArgument) return concat("!", error.what());
    EXPECT_NE(std::string(error.what()).find("line "), std::string::npos) << error.what();
    return "error";
  }
}

TEST_F(JinjaGolden, SnippetsRenderAsInPython) {
  const OrderedJson golden = read_golden("jinja_snippets.json");
  const Variables variables = variables_of(golden["context"]);
  ASSERT_GE(golden["snippets"].size(), 300u);
  for (const OrderedJson& snippet : golden["snippets"]) {
    std::string expected = "error";
    if (snippet.contains("output")) expected = concat("=", snippet["output"].get<std::string>());
    if (snippet.contains("raised")) expected = concat("!", snippet["raised"].get<std::string>());
    const std::string source = snippet["template"];
    EXPECT_EQ(outcome(source, variables, golden["now"].get<std::time_t>()), expected) << source;
  }
}

// The golden file holds "length:start of sha256", "!message" or "error" for every conversation.
TEST_F(JinjaGolden, ChatTemplatesRenderAsInPython) {
  const std::string folder = test::shared("data/templates");
  LOWBIT_SKIP_WITHOUT(folder, "shared/data/templates");
  const OrderedJson golden = read_golden("chat_templates.json");
  const OrderedJson conversations = read_golden("chat_conversations.json");
  for (const auto& [file, expected] : golden["templates"].items()) {
    const std::string source = read_file(folder + "/" + file, limits::kTemplateBytes);
    size_t i = 0;
    for (const auto& [name, conversation] : conversations.items()) {
      std::string result =
          outcome(source, variables_of(conversation), golden["now"].get<std::time_t>());
      if (result[0] == '=') {
        result = concat(result.size() - 1, ":", test::sha256(result.substr(1)).substr(0, 16));
      }
      EXPECT_EQ(result, expected[i++].get<std::string>()) << file << " with " << name;
    }
  }
}

}  // namespace
}  // namespace lowbit

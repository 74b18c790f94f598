#include "lowbit/server/tool_calls.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"

namespace lowbit::server {
namespace {

struct Parsed {
  std::string content;
  std::vector<std::pair<std::string, std::string>> calls;
  bool operator==(const Parsed&) const = default;
};

void collect(const ToolText& text, Parsed& parsed) {
  parsed.content += text.content;
  for (const ToolDelta& delta : text.calls) {
    if (!delta.name.empty()) {
      EXPECT_EQ(static_cast<size_t>(delta.index), parsed.calls.size());
      parsed.calls.emplace_back(delta.name, "");
    }
    ASSERT_LT(static_cast<size_t>(delta.index), parsed.calls.size());
    parsed.calls[static_cast<size_t>(delta.index)].second += delta.arguments;
  }
}

Parsed parse(ToolStyle style, std::string_view text, size_t step, int max_calls = 64) {
  ToolCallParser parser(style, {"f", "get_weather"}, max_calls);
  Parsed parsed;
  for (size_t at = 0; at < text.size(); at += step) {
    collect(parser.push(text.substr(at, step)), parsed);
  }
  collect(parser.finish(), parsed);
  EXPECT_EQ(static_cast<size_t>(parser.calls()), parsed.calls.size());
  return parsed;
}

void expect(ToolStyle style, std::string_view text, const Parsed& expected, int max_calls = 64) {
  for (size_t step = 1; step <= text.size() + 1; step = step < 20 ? step + 1 : step * 2) {
    const Parsed parsed = parse(style, text, step, max_calls);
    EXPECT_EQ(parsed.content, expected.content) << text << " in steps of " << step;
    EXPECT_EQ(parsed.calls, expected.calls) << text << " in steps of " << step;
  }
}

TEST(ToolCalls, Hermes) {
  const auto style = ToolStyle::kHermes;
  expect(style, "Hello <b>!", {"Hello <b>!", {}});
  expect(style, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": [1, \"}\"]}}\n</tool_call>",
         {"", {{"f", R"({"x": [1, "}"]})"}}});
  expect(
      style,
      "Let me see.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n"
      "<tool_call>\n{\"arguments\": {\"a\": \"\\\"\"}, \"name\": \"get_weather\"}\n</tool_call>\n",
      {"Let me see.", {{"f", "{}"}, {"get_weather", R"({"a": "\""})"}}});
  expect(style, "<tool_call>{\"name\": \"f\"}</tool_call> done", {" done", {{"f", "{}"}}});
  expect(style, "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
         {"", {{"f", R"({"a": 1})"}}});
  expect(style, "<tool_call>{\"name\": \"f\", \"arguments\": {}} and no end",
         {"and no end", {{"f", "{}"}}});
}

TEST(ToolCalls, WhatIsNoCallIsContent) {
  const auto style = ToolStyle::kHermes;
  for (const char* text : {"<tool_call>not json</tool_call>",
                           "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>",
                           "<tool_call>[1]</tool_call>", "<tool_call>{\"name\": 1}</tool_call>",
                           "<tool_call", "<tool_call>{\"name\": \"f", "<tool_call>{}</tool_call>",
                           "a <tool_call> b", "<<tool_call", "  spaces stay \n"}) {
    expect(style, text, {text, {}});
  }
}

TEST(ToolCalls, ACutCallKeepsWhatHasBeenSaid) {
  expect(ToolStyle::kHermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1",
         {"", {{"f", "{\"x\": 1"}}});
}

// Found by fuzzing: what is shown depended on where the text was cut.
TEST(ToolCalls, ABrokenCallEndsWhereItBreaks) {
  expect(ToolStyle::kHermes,
         R"(<tool_call>{"name":"f","arguments":{"x":[1,argu}}</tool_call> and)"
         R"(<tool_call>{"arguments": "{}", "name": "f"}</tool_call>)",
         {" and", {{"f", R"({"x":[1,argu}})"}, {"f", "{}"}}});
}

TEST(ToolCalls, Llama3Json) {
  const auto style = ToolStyle::kLlama3Json;
  expect(style, R"({"name": "f", "parameters": {"x": 1}})", {"", {{"f", R"({"x": 1})"}}});
  expect(
      style,
      R"(<|python_tag|>{"name": "f", "parameters": {}}; {"name": "f", "parameters": {"y": null}})",
      {"", {{"f", "{}"}, {"f", R"({"y": null})"}}});
  expect(style, R"({"type": "function", "name": "f", "parameters": {}})", {"", {{"f", "{}"}}});
  expect(style, R"({"answer": 42})", {R"({"answer": 42})", {}});
  expect(style, R"(The call is {"name": "f", "parameters": {}})",
         {R"(The call is {"name": "f", "parameters": {}})", {}});
}

TEST(ToolCalls, Mistral) {
  const auto style = ToolStyle::kMistral;
  expect(
      style,
      R"(Sure. [TOOL_CALLS] [{"name": "f", "arguments": {}}, {"name": "f", "arguments": {"a": 1}}])",
      {"Sure.", {{"f", "{}"}, {"f", R"({"a": 1})"}}});
}

TEST(ToolCalls, MoreCallsThanWantedAreDropped) {
  expect(ToolStyle::kHermes,
         "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"
         "<tool_call>{\"name\": \"f\", \"arguments\": {\"b\": 2}}</tool_call>",
         {"", {{"f", "{}"}}}, 1);
}

TEST(ToolCalls, ArgumentsAreStreamed) {
  ToolCallParser parser(ToolStyle::kHermes, {"f"}, 8);
  EXPECT_TRUE(parser.push("<tool_call>{\"name\": \"f\", ").calls.empty());
  const ToolText first = parser.push("\"arguments\": {\"text\": \"long");
  ASSERT_EQ(first.calls.size(), 1u + (first.calls.size() > 1));
  EXPECT_EQ(first.calls.front().name, "f");
  const ToolText second = parser.push(" and longer");
  ASSERT_EQ(second.calls.size(), 1u);
  EXPECT_EQ(second.calls[0].arguments, " and longer");
}

TEST(ToolCalls, TheStyleIsFoundInTheTemplate) {
  EXPECT_EQ(detect_tool_style("... <tool_call> ..."), ToolStyle::kHermes);
  EXPECT_EQ(detect_tool_style("... <|python_tag|> ..."), ToolStyle::kLlama3Json);
  EXPECT_EQ(detect_tool_style("... [TOOL_CALLS] ..."), ToolStyle::kMistral);
  EXPECT_EQ(detect_tool_style(""), ToolStyle::kHermes);
  EXPECT_EQ(tool_style_by_name("llama3_json"), ToolStyle::kLlama3Json);
  EXPECT_THROW(tool_style_by_name("x"), Error);
}

}  // namespace
}  // namespace lowbit::server

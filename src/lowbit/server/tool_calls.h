// ToolCallParser: finds calls of tools in the text of an answer, as it comes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lowbit/server/call_scanner.h"

namespace lowbit::server {

// How a model writes a call:
enum class ToolStyle {
  kHermes,      // <tool_call>{"name": "f", "arguments": {}}</tool_call>: Hermes, Qwen
  kLlama3Json,  // {"name": "f", "parameters": {}}; {...}, perhaps after <|python_tag|>
  kMistral,     // [TOOL_CALLS] [{"name": "f", "arguments": {}}, ...]
};

// What the model's chat template asks for; kHermes if it does not say.
ToolStyle detect_tool_style(const std::string& chat_template);
// Of --tool-call-parser: "hermes", "llama3_json", "mistral". Throws kInvalidArgument.
ToolStyle tool_style_by_name(const std::string& name);

struct ToolDelta {
  int index = 0;          // of the call
  std::string name;       // in the first delta of a call
  std::string arguments;  // the next piece of JSON text
};

struct ToolText {
  std::string content;  // text that belongs to no call
  std::vector<ToolDelta> calls;
};

// How the text is cut into pieces does not change what comes out, but for the cuts. Text that looks
// like a call and is none comes out as content. White space around calls is dropped.
class ToolCallParser {
 public:
  // tools: names there are; a call of another is content. max_calls: further ones are dropped.
  ToolCallParser(ToolStyle style, std::vector<std::string> tools, int max_calls);

  ToolText push(std::string_view text);
  ToolText finish();
  int calls() const { return calls_; }

 private:
  enum class State { kText, kCall, kAfterCall };

  void text_byte(char byte, ToolText& out);
  void call_byte(char byte, ToolText& out);
  void after_byte(char byte, ToolText& out);
  void begin_call();
  void end_call(ToolText& out);
  void give_up(ToolText& out);
  void add_content(std::string_view text, ToolText& out);
  void pass_arguments(ToolText& out);
  std::string_view opener() const;

  ToolStyle style_;
  std::vector<std::string> tools_;
  int max_calls_;
  State state_ = State::kText;
  std::string held_;    // could become an opener or a closer
  std::string spaces_;  // white space that is dropped if a call follows
  std::string raw_;     // the call so far, should it be none
  CallScanner scanner_;
  bool shown_ = false;  // the call being read has been given out
  bool began_ = false;  // some content has come
  int calls_ = 0;
};

}  // namespace lowbit::server

#include "lowbit/server/tool_calls.h"

#include <algorithm>
#include <utility>

#include "lowbit/base/check.h"

namespace lowbit::server {

namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

constexpr std::string_view kHermesClose = "</tool_call>";

}  // namespace

ToolStyle detect_tool_style(const std::string& chat_template) {
  const auto has = [&](const char* text) { return chat_template.find(text) != std::string::npos; };
  if (has("<tool_call>")) return ToolStyle::kHermes;
  if (has("[TOOL_CALLS]")) return ToolStyle::kMistral;
  if (has("<|python_tag|>") || has("\"parameters\": ")) return ToolStyle::kLlama3Json;
  return ToolStyle::kHermes;
}

ToolStyle tool_style_by_name(const std::string& name) {
  if (name == "hermes") return ToolStyle::kHermes;
  if (name == "llama3_json") return ToolStyle::kLlama3Json;
  if (name == "mistral") return ToolStyle::kMistral;
  fail(ErrorKind::kInvalidArgument, "tool call parser \"", name,
       "\": there are hermes, llama3_json and mistral");
}

ToolCallParser::ToolCallParser(ToolStyle style, std::vector<std::string> tools, int max_calls)
    : style_(style), tools_(std::move(tools)), max_calls_(max_calls) {}

std::string_view ToolCallParser::opener() const {
  switch (style_) {
    case ToolStyle::kHermes:
      return "<tool_call>";
    case ToolStyle::kLlama3Json:
      return "<|python_tag|>";
    case ToolStyle::kMistral:
      break;
  }
  return "[TOOL_CALLS]";
}

ToolText ToolCallParser::push(std::string_view text) {
  ToolText out;
  for (const char byte : text) {
    switch (state_) {
      case State::kText:
        text_byte(byte, out);
        break;
      case State::kCall:
        call_byte(byte, out);
        break;
      case State::kAfterCall:
        after_byte(byte, out);
        break;
    }
  }
  if (state_ == State::kCall) pass_arguments(out);
  return out;
}

void ToolCallParser::add_content(std::string_view text, ToolText& out) {
  for (const char byte : text) {
    if (is_space(byte)) {
      spaces_ += byte;
    } else {
      out.content += std::exchange(spaces_, "");
      out.content += byte;
      began_ = true;
    }
  }
}

void ToolCallParser::text_byte(char byte, ToolText& out) {
  if (style_ == ToolStyle::kLlama3Json && byte == '{' && held_.empty() && !began_) {
    begin_call();
    return call_byte(byte, out);
  }
  held_ += byte;
  // What is held is always the beginning of the opener: no opener has its first byte twice.
  const std::string_view open = opener();
  if (open.substr(0, held_.size()) != held_) {
    const bool restart = byte == open.front();
    if (restart) held_.pop_back();
    add_content(std::exchange(held_, restart ? std::string(1, byte) : ""), out);
  }
  if (held_ == open) begin_call();
}

void ToolCallParser::begin_call() {
  state_ = State::kCall;
  raw_ = std::exchange(held_, "");
  scanner_ = CallScanner();
  shown_ = false;
}

void ToolCallParser::call_byte(char byte, ToolText& out) {
  raw_ += byte;
  // The opener is followed by a list in Mistral's style, by nothing else than the object in others.
  if (style_ == ToolStyle::kMistral && byte == '[' && raw_.find('{') == std::string::npos &&
      calls_ == 0) {
    return;
  }
  switch (scanner_.push(byte)) {
    case CallScanner::State::kReading:
      if (scanner_.named() && !shown_) pass_arguments(out);
      break;
    case CallScanner::State::kBad:
      if (!shown_) return give_up(out);
      end_call(out);
      after_byte(byte, out);
      break;
    case CallScanner::State::kDone:
      end_call(out);
      break;
  }
}

// What has been read of the arguments goes out whole, wherever the text was cut.
void ToolCallParser::end_call(ToolText& out) {
  pass_arguments(out);
  if (state_ != State::kCall) return;  // it was not a call of a tool
  ++calls_;
  state_ = State::kAfterCall;
  held_.clear();
  raw_.clear();
}

void ToolCallParser::pass_arguments(ToolText& out) {
  if (!scanner_.named()) return;
  const bool known = std::find(tools_.begin(), tools_.end(), scanner_.name()) != tools_.end();
  if (!shown_ && !known) return give_up(out);
  std::string arguments = scanner_.take_arguments();
  if (calls_ < max_calls_ && (!shown_ || !arguments.empty())) {
    out.calls.push_back({calls_, shown_ ? "" : scanner_.name(), std::move(arguments)});
  }
  shown_ = true;
}

// What has been shown of a call stays; else it was content all along.
void ToolCallParser::give_up(ToolText& out) {
  state_ = State::kText;
  if (shown_) {
    ++calls_;
    raw_.clear();
    return;
  }
  began_ = true;
  add_content(std::exchange(raw_, ""), out);
}

void ToolCallParser::after_byte(char byte, ToolText& out) {
  if (held_.empty() && is_space(byte)) return;
  if (style_ == ToolStyle::kHermes) {
    held_ += byte;
    if (held_ == kHermesClose) {
      held_.clear();
      state_ = State::kText;
    } else if (kHermesClose.substr(0, held_.size()) != held_) {
      state_ = State::kText;  // the end tag is missing
      for (const char again : std::exchange(held_, "")) text_byte(again, out);
    }
    return;
  }
  if (byte == ',' || byte == ';') return;
  if (byte == '{') {
    begin_call();
    return call_byte(byte, out);
  }
  state_ = State::kText;
  if (byte != ']' || style_ != ToolStyle::kMistral) text_byte(byte, out);
}

ToolText ToolCallParser::finish() {
  ToolText out;
  if (state_ == State::kCall) {
    give_up(out);
  } else if (state_ == State::kText) {
    add_content(std::exchange(held_, ""), out);
  }
  if (calls_ == 0) out.content += std::exchange(spaces_, "");
  calls_ = std::min(calls_, max_calls_);
  return out;
}

}  // namespace lowbit::server

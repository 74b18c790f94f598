#include "lowbit/server/call_scanner.h"

#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/json.h"

namespace lowbit::server {

namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// The text that a JSON string stands for; false if it is not one.
bool unquote(const std::string& json, std::string& text) {
  try {
    const Json value = parse_json(json, "string");
    if (!value.is_string()) return false;
    text = value.get<std::string>();
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool is_arguments(const std::string& key) { return key == "arguments" || key == "parameters"; }

}  // namespace

CallScanner::State CallScanner::push(char byte) {
  if (state_ != State::kReading) return state_;
  if (want_ == Want::kInValue) return in_value(byte);
  if (is_space(byte)) return state_;
  switch (want_) {
    case Want::kOpen:
      if (byte != '{') return bad();
      want_ = Want::kKeyOrClose;
      return state_;
    case Want::kKeyOrClose:
      if (byte == '}') return close();
      [[fallthrough]];
    case Want::kKey:
      if (byte != '"') return bad();
      key_.clear();
      return begin_value(byte);
    case Want::kColon:
      if (byte != ':') return bad();
      want_ = Want::kValue;
      return state_;
    case Want::kValue:
      return begin_value(byte);
    case Want::kCommaOrClose:
      if (byte == '}') return close();
      if (byte != ',') return bad();
      want_ = Want::kKey;
      return state_;
    case Want::kInValue:
      break;
  }
  return bad();
}

// Keys are read as values too: key_ is empty then.
CallScanner::State CallScanner::begin_value(char byte) {
  want_ = Want::kInValue;
  in_string_ = byte == '"';
  escaped_ = false;
  depth_ = byte == '{' || byte == '[' ? 1 : 0;
  scalar_ = !in_string_ && depth_ == 0;
  quoted_arguments_ = false;
  value_.assign(1, byte);
  if (is_arguments(key_)) {
    if (has_arguments_ || scalar_ || byte == '[') return bad();
    quoted_arguments_ = in_string_;
    if (has_name_ && !quoted_arguments_) named_ = true;
  }
  return state_;
}

CallScanner::State CallScanner::in_value(char byte) {
  if (scalar_ && (byte == ',' || byte == '}' || is_space(byte))) {
    end_value();
    return push(byte);
  }
  value_ += byte;
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (byte == '\\') {
      escaped_ = true;
    } else if (byte == '"') {
      in_string_ = false;
      if (depth_ == 0) return end_value();
    }
    return state_;
  }
  if (byte == '"') {
    if (scalar_) return bad();
    in_string_ = true;
  } else if (byte == '{' || byte == '[') {
    if (scalar_) return bad();
    ++depth_;
  } else if ((byte == '}' || byte == ']') && --depth_ == 0) {
    return end_value();
  }
  return state_;
}

CallScanner::State CallScanner::end_value() {
  want_ = Want::kCommaOrClose;
  if (key_.empty()) {  // it was a key
    if (!unquote(value_, key_) || key_.empty()) return bad();
    value_.clear();
    want_ = Want::kColon;
    return state_;
  }
  const std::string key = std::exchange(key_, "");
  std::string value = std::exchange(value_, "");
  if (key == "name") {
    if (has_name_ || !unquote(value, name_) || name_.empty()) return bad();
    has_name_ = true;
    named_ = has_arguments_;
  } else if (is_arguments(key)) {
    has_arguments_ = true;
    std::string text;
    if (quoted_arguments_ && unquote(value, text)) value = std::move(text);
    arguments_ += value;
    named_ = has_name_;
  }
  return state_;
}

CallScanner::State CallScanner::close() {
  if (!has_name_) return bad();
  if (!has_arguments_) arguments_ = "{}";
  named_ = true;
  return state_ = State::kDone;
}

std::string CallScanner::take_arguments() {
  if (!named_) return "";
  std::string pieces = std::exchange(arguments_, "");
  if (want_ == Want::kInValue && is_arguments(key_) && !quoted_arguments_) {
    pieces += std::exchange(value_, "");
  }
  return pieces;
}

}  // namespace lowbit::server

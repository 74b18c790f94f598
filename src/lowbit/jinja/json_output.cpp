// Python's json.dumps.
#include <algorithm>
#include <cmath>

#include "lowbit/base/limits.h"
#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/operators.h"
#include "lowbit/jinja/print.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  std::string write(const Value& value) {
    append(value);
    return std::move(out_);
  }

 private:
  void append(const Value& value) {
    const Recursion recursion;
    if (Meter* meter = Meter::current()) meter->step();
    if (value.is_none()) {
      out_ += "null";
    } else if (value.is_bool()) {
      out_ += value.boolean() ? "true" : "false";
    } else if (value.is_int()) {
      out_ += to_text(value.integer());
    } else if (value.is_float()) {
      out_ += number(value.real());
    } else if (const Str* text = value.string()) {
      quote(text->text);
    } else if (const Sequence* sequence = value.sequence()) {
      array(*sequence);
    } else if (const Dict* dict = value.dict()) {
      object(*dict);
    } else {
      raise("TypeError: Object of type ", type_name(value), " is not JSON serializable");
    }
    if (out_.size() > kLimit) refuse("tojson gives more than ", kLimit, " bytes");
  }

  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return to_text(value);
  }

  void quote(const std::string& text) {
    charge_bytes(text.size());
    out_ += '"';
    for (size_t i = 0; i < text.size();) {
      const char32_t c = unicode::decode_at(text, i);
      constexpr std::string_view kSpecial = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
      const size_t special = c < 0x80 ? kSpecial.find(static_cast<char>(c)) : std::string_view::npos;
      if (special != std::string_view::npos) {
        out_ += '\\';
        out_ += kLetters[special];
      } else if (c < 0x20 || (style_.ensure_ascii && c > 0x7e && c < 0x10000)) {
        out_ += c == 0x7f ? "\x7f" : "\\u" + hexadecimal(c, 4);
      } else if (style_.ensure_ascii && c >= 0x10000) {
        out_ += "\\u" + hexadecimal(0xd7c0 + (c >> 10), 4) + "\\u" +
                hexadecimal(0xdc00 + (c & 0x3ff), 4);
      } else {
        unicode::append(out_, c);
      }
    }
    out_ += '"';
  }

  void line() {
    if (!style_.indent) return;
    out_ += '\n';
    for (int i = 0; i < level_; ++i) out_ += *style_.indent;
  }

  void array(const Sequence& sequence) {
    if (sequence.items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    ++level_;
    for (size_t i = 0; i < sequence.items.size(); ++i) {
      if (i) out_ += style_.item_separator;
      line();
      append(sequence.items[i]);
    }
    --level_;
    line();
    out_ += ']';
  }

  static std::string key_text(const Value& key) {
    if (key.is_string()) return key.string()->text;
    if (key.is_none()) return "null";
    if (key.is_bool()) return key.boolean() ? "true" : "false";
    if (key.is_int()) return to_text(key.integer());
    if (key.is_float()) return number(key.real());
    raise("TypeError: keys must be str, int, float, bool or None, not ", type_name(key));
  }

  void object(const Dict& dict) {
    if (dict.size() == 0) {
      out_ += "{}";
      return;
    }
    auto entries = dict.entries();
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return less(a.first, b.first); });
    }
    out_ += '{';
    ++level_;
    bool first = true;
    for (const auto& [key, value] : entries) {
      if (!std::exchange(first, false)) out_ += style_.item_separator;
      line();
      quote(key_text(key));
      out_ += style_.key_separator;
      append(value);
    }
    --level_;
    line();
    out_ += '}';
  }

  static constexpr size_t kLimit = limits::kTemplateStringBytes;
  const JsonStyle& style_;
  std::string out_;
  int level_ = 0;
};

}  // namespace

std::string to_json(const Value& value, const JsonStyle& style) {
  return JsonWriter(style).write(value);
}

}  // namespace lowbit::jinja

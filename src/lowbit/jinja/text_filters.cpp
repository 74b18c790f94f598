// jinja2's filters of strings.
#include <algorithm>

#include "lowbit/base/limits.h"
#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/format.h"
#include "lowbit/jinja/operators.h"
#include "lowbit/jinja/print.h"
#include "lowbit/jinja/text.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

bool is_markup(const Value& value) { return value.is_string() && value.string()->markup; }

// What jinja2's soft_str gives: strings as they are, others printed.
Value soft(const Value& value) {
  return value.is_string() ? value : Value::string(to_text(value));
}

template <std::string (*convert)(std::string_view)>
Value filter_convert(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "filter", {});
  const std::string text = to_text(value);
  charge_bytes(text.size() * 8);
  return Value::string(convert(text), is_markup(value));
}

Value filter_string(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "string", {});
  return soft(value);
}

// Words begin behind white space and - ( { [ <.
Value filter_title(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "title", {});
  const std::u32string points = unicode::decode(to_text(value));
  const auto separates = [](char32_t c) {
    return unicode::is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  std::string out;
  for (size_t i = 0; i < points.size();) {
    size_t end = i;
    while (end < points.size() && separates(points[end]) == separates(points[i])) ++end;
    out += unicode::upper(unicode::encode(points.substr(i, 1)));
    out += unicode::lower(unicode::encode(points.substr(i + 1, end - i - 1)));
    i = end;
  }
  return Value::string(std::move(out), is_markup(value));
}

Value filter_trim(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "trim", {"chars"});
  const std::string text = to_text(value);
  charge_bytes(text.size());
  const std::string chars = bound.has_value(0) ? bound.string(0).text : "";
  return Value::string(std::string(strip(text, bound.has_value(0) ? &chars : nullptr, true, true)),
                       is_markup(value));
}

Value filter_replace(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "replace", {"old", "new", "count"}, 2);
  const Int count = bound.has_value(2) ? bound.integer(2, -1) : -1;
  return Value::string(replace(to_text(value), to_text(bound[0]), to_text(bound[1]), count));
}

Value filter_center(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "center", {"width"});
  const size_t width = bounded_size(bound.integer(0, 80), limits::kTemplateStringBytes / 4);
  const Value text = soft(value);
  return Value::string(center(*text.string(), width, " "), is_markup(value));
}

Value filter_format(Interpreter&, const Value& value, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    raise("FilterArgumentError: can't handle positional and keyword arguments at the same time");
  }
  Value inputs = Value::tuple(std::move(arguments.positional));
  if (!arguments.named.empty()) {
    auto dict = std::make_shared<Dict>();
    for (auto& [name, item] : arguments.named) dict->set(Value::string(name), std::move(item));
    inputs = Value(std::shared_ptr<const Dict>(std::move(dict)));
  }
  const Value text = soft(value);
  return format_percent(*text.string(), inputs);
}

Value filter_indent(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "indent", {"width", "first", "blank"});
  require_defined(value);
  if (!value.is_string()) raise("TypeError: indent wants a str, not ", type_name(value));
  const std::string indention =
      bound.has(0) && bound[0].is_string()
          ? bound.string(0).text
          : std::string(bounded_size(bound.integer(0, 4), limits::kTemplateStringBytes), ' ');
  const bool blank = bound.truth(2, false);
  const std::string text = value.string()->text + "\n";
  std::string out = bound.truth(1, false) ? indention : "";
  bool first = true;
  for (const std::string_view line : split_lines(text, false)) {
    if (!first) out += "\n";
    if (!first && (blank || !line.empty())) out += indention;
    first = false;
    out += line;
    check_text_size(out.size());
  }
  return Value::string(std::move(out), is_markup(value));
}

Value filter_truncate(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "truncate", {"length", "killwords", "end", "leeway"});
  require_defined(value);
  if (!value.is_string()) raise("TypeError: truncate wants a str, not ", type_name(value));
  const Int length = bound.integer(0, 255);
  const std::string end = bound.text(2, "...");
  const Int leeway = bound.has_value(3) ? bound.integer(3, 5) : 5;
  const Int room = length - static_cast<Int>(unicode::length(end));
  if (room < 0) raise("AssertionError: expected length >= ", unicode::length(end));
  if (leeway < 0) raise("AssertionError: expected leeway >= 0");
  const Str& text = *value.string();
  if (static_cast<Int>(text.length) <= length + leeway) return value;
  std::string kept = text.text.substr(0, unicode::offset(text.text, static_cast<size_t>(room)));
  const size_t space = kept.rfind(' ');
  if (!bound.truth(1, false) && space != std::string::npos) kept.resize(space);
  return Value::string(kept + end, text.markup);
}

Value filter_wordcount(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "wordcount", {});
  const std::string text = to_text(value);
  charge_bytes(text.size() * 4);
  size_t words = 0;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const bool word = unicode::is_word(unicode::decode_at(text, i));
    words += word && !inside;
    inside = word;
  }
  return Value(words);
}

Value filter_escape(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "escape", {});
  if (is_markup(value)) return value;
  return Value::string(escape_html(to_text(value)), true);
}

Value filter_force_escape(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "forceescape", {});
  return Value::string(escape_html(to_text(value)), true);
}

Value filter_safe(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "safe", {});
  return Value::string(to_text(value), true);
}

void append_url(std::string& out, const std::string& text, bool for_query) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' ||
        c == '.' || c == '-' || c == '~' || (c == '/' && !for_query)) {
      out += c;
    } else if (c == ' ' && for_query) {
      out += '+';
    } else {
      out += '%';
      out += "0123456789ABCDEF"[byte >> 4];
      out += "0123456789ABCDEF"[byte & 15];
    }
  }
}

Value filter_urlencode(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "urlencode", {});
  std::string out;
  if (value.is_string() || !is_iterable(value)) {
    append_url(out, to_text(value), false);
    return Value::string(std::move(out));
  }
  Arguments nothing;
  const Value pairs = value.dict() ? (*find_container_method(value, "items"))(value, nothing) : value;
  Iteration iteration(pairs);
  while (const auto pair = iteration.next()) {
    const Values both = elements(*pair);
    if (both.size() != 2) raise("ValueError: urlencode wants pairs");
    if (!out.empty()) out += '&';
    append_url(out, to_text(both[0]), true);
    out += '=';
    append_url(out, to_text(both[1]), true);
    check_text_size(out.size());
  }
  return Value::string(std::move(out));
}

JsonStyle json_style(const Bound& bound) {
  JsonStyle style;
  style.ensure_ascii = bound.truth(0, false);
  style.sort_keys = bound.truth(3, false);
  if (bound.has_value(1)) {
    style.indent = bound[1].is_string()
                       ? bound.string(1).text
                       : std::string(bounded_size(bound.integer(1, 0), 1000), ' ');
    style.item_separator = ",";
  }
  if (bound.has_value(2)) {
    const Values both = elements(bound[2]);
    if (both.size() != 2 || !both[0].is_string() || !both[1].is_string()) {
      raise("ValueError: separators must be two str");
    }
    style.item_separator = both[0].string()->text;
    style.key_separator = both[1].string()->text;
  }
  return style;
}

Value filter_tojson(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  return Value::string(to_json(value, json_style(bound)));
}

constexpr Named<Filter> kFilters[] = {
    {"capitalize", filter_convert<unicode::capitalize>},
    {"center", filter_center},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"forceescape", filter_force_escape},
    {"format", filter_format},
    {"indent", filter_indent},
    {"lower", filter_convert<unicode::lower>},
    {"replace", filter_replace},
    {"safe", filter_safe},
    {"string", filter_string},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", filter_convert<unicode::upper>},
    {"urlencode", filter_urlencode},
    {"wordcount", filter_wordcount},
};

}  // namespace

const Filter* find_text_filter(const std::string& name) {
  for (const auto& filter : kFilters) {
    if (name == filter.name) return &filter.function;
  }
  return nullptr;
}

}  // namespace lowbit::jinja

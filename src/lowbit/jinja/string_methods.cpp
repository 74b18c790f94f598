// The methods of Python's str.
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

const Str& text_of(const Value& self) { return *self.string(); }

Value like(const Value& self, std::string text) {
  return Value::string(std::move(text), text_of(self).markup);
}

template <std::string (*convert)(std::string_view)>
Value convert_method(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "str method", {});
  charge_bytes(text_of(self).text.size() * 8);
  return like(self, convert(text_of(self).text));
}

// True of every code point, of at least one.
template <bool (*holds)(char32_t)>
Value all_method(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "str method", {});
  const std::string& text = text_of(self).text;
  charge_bytes(text.size() * 4);
  for (size_t i = 0; i < text.size();) {
    if (!holds(unicode::decode_at(text, i))) return Value(false);
  }
  return Value(!text.empty());
}

template <bool (*holds)(std::string_view)>
Value text_method(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "str method", {});
  return Value(holds(text_of(self).text));
}

// start and end of find, count, startswith, ... as byte offsets; none if start lies behind the end.
struct Window {
  std::string_view text;
  size_t first = 0;  // code points before it
  bool valid = true;
};

Window window(const Str& text, const Bound& bound, size_t start_index) {
  const auto size = static_cast<Int>(text.length);
  const auto clamp = [&](size_t i, Int fallback) {
    if (!bound.has_value(i)) return fallback;
    const Int value = bound.integer(i, fallback);
    return std::max<Int>(value < 0 ? value + size : value, 0);
  };
  const Int start = clamp(start_index, 0);
  const Int end = std::min(clamp(start_index + 1, size), size);
  if (start > end) return {"", 0, false};
  const size_t begin = unicode::offset(text.text, static_cast<size_t>(start));
  const size_t stop = end == size ? text.text.size()
                                  : unicode::offset(text.text, static_cast<size_t>(end));
  return {std::string_view(text.text).substr(begin, stop - begin), static_cast<size_t>(start), true};
}

Int find_in(const Value& self, Arguments& arguments, bool last) {
  const Bound bound(arguments, "find", {"sub", "start", "end"}, 1);
  const std::string& needle = bound.string(0).text;
  charge_bytes(text_of(self).text.size());
  const Window area = window(text_of(self), bound, 1);
  if (!area.valid) return -1;
  const size_t found = last ? area.text.rfind(needle) : area.text.find(needle);
  if (found == std::string_view::npos) return -1;
  return static_cast<Int>(area.first + unicode::length(area.text.substr(0, found)));
}

template <bool last>
Value find_method(const Value& self, Arguments& arguments) {
  return Value(find_in(self, arguments, last));
}

template <bool last>
Value index_method(const Value& self, Arguments& arguments) {
  const Int found = find_in(self, arguments, last);
  if (found < 0) raise("ValueError: substring not found");
  return Value(found);
}

Value count_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "count", {"sub", "start", "end"}, 1);
  const std::string& needle = bound.string(0).text;
  charge_bytes(text_of(self).text.size());
  const Window area = window(text_of(self), bound, 1);
  if (!area.valid) return Value(0);
  if (needle.empty()) return Value(unicode::length(area.text) + 1);
  size_t count = 0;
  for (size_t at = area.text.find(needle); at != std::string_view::npos;
       at = area.text.find(needle, at + needle.size())) {
    ++count;
  }
  return Value(count);
}

template <bool end>
Value affix_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, end ? "endswith" : "startswith", {"affix", "start", "end"}, 1);
  const Window area = window(text_of(self), bound, 1);
  const auto matches = [&](const Value& affix) {
    if (!affix.is_string()) {
      require_defined(affix);
      raise("TypeError: startswith and endswith want a str or a tuple of str, not ",
            type_name(affix));
    }
    const std::string& text = affix.string()->text;
    return area.valid && (end ? area.text.ends_with(text) : area.text.starts_with(text));
  };
  const Sequence* several = bound[0].sequence();
  if (!several || several->type == Sequence::Type::kList) return Value(matches(bound[0]));
  return Value(std::any_of(several->items.begin(), several->items.end(), matches));
}

template <bool left, bool right>
Value strip_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "strip", {"chars"});
  const std::string& text = text_of(self).text;
  charge_bytes(text.size());
  if (!bound.has_value(0)) return like(self, std::string(strip(text, nullptr, left, right)));
  const std::string chars = bound.string(0).text;
  return like(self, std::string(strip(text, &chars, left, right)));
}

template <bool from_right>
Value split_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "split", {"sep", "maxsplit"});
  const std::string& text = text_of(self).text;
  charge_bytes(text.size());
  const Int limit = bound.integer(1, -1);
  std::vector<std::string_view> parts;
  if (!bound.has_value(0)) {
    parts = split_space(text, limit, from_right);
  } else {
    const std::string& separator = bound.string(0).text;
    if (separator.empty()) raise("ValueError: empty separator");
    parts = split(text, separator, limit, from_right);
  }
  Values items;
  for (const std::string_view part : parts) items.push_back(like(self, std::string(part)));
  return Value::list(std::move(items));
}

template <bool last>
Value partition_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "partition", {"sep"}, 1);
  const std::string& text = text_of(self).text;
  const std::string& separator = bound.string(0).text;
  if (separator.empty()) raise("ValueError: empty separator");
  const size_t at = last ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    const Value empty = like(self, "");
    return last ? Value::tuple({empty, empty, self}) : Value::tuple({self, empty, empty});
  }
  return Value::tuple({like(self, text.substr(0, at)), like(self, separator),
                       like(self, text.substr(at + separator.size()))});
}

Value splitlines_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "splitlines", {"keepends"});
  Values lines;
  for (const std::string_view line : split_lines(text_of(self).text, bound.truth(0, false))) {
    lines.push_back(like(self, std::string(line)));
  }
  return Value::list(std::move(lines));
}

Value replace_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "replace", {"old", "new", "count"}, 2);
  const bool markup = text_of(self).markup;
  const auto part = [&](size_t i) {
    return markup && !bound.string(i).markup ? escape_html(bound.string(i).text)
                                             : bound.string(i).text;
  };
  return like(self, replace(text_of(self).text, part(0), part(1), bound.integer(2, -1)));
}

Value join_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "join", {"iterable"}, 1);
  const Str& separator = text_of(self);
  std::string out;
  size_t count = 0;
  Iteration iteration(bound[0]);
  while (const auto item = iteration.next()) {
    if (!item->is_string()) {
      raise("TypeError: sequence item ", count, ": expected str instance, ", type_name(*item),
            " found");
    }
    if (count++ > 0) out += separator.text;
    const Str& text = *item->string();
    out += separator.markup && !text.markup ? escape_html(text.text) : text.text;
    check_text_size(out.size());
  }
  return like(self, std::move(out));
}

// Fills text of `length` code points to `width` with the one-character `fill`.
template <int side>  // -1: text at the left, 0: centered, 1: at the right
Value justify_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "justify", {"width", "fillchar"}, 1);
  const Str& text = text_of(self);
  const std::string fill = bound.text(1, " ");
  if (unicode::length(fill) != 1) {
    raise("TypeError: The fill character must be exactly one character long");
  }
  const size_t width = bounded_size(bound.integer(0, 0), limits::kTemplateStringBytes / 4);
  return like(self, side < 0    ? pad(text, width, fill, 0, 1)
                    : side == 0 ? center(text, width, fill)
                                : pad(text, width, fill, 1, 0));
}

Value zfill_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "zfill", {"width"}, 1);
  const Str& text = text_of(self);
  const size_t width = bounded_size(bound.integer(0, 0), limits::kTemplateStringBytes / 4);
  if (width <= text.length) return self;
  const bool sign = !text.text.empty() && (text.text[0] == '+' || text.text[0] == '-');
  return like(self, text.text.substr(0, sign) + std::string(width - text.length, '0') +
                        text.text.substr(sign));
}

template <bool prefix>
Value remove_affix_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, prefix ? "removeprefix" : "removesuffix", {"affix"}, 1);
  const std::string& text = text_of(self).text;
  const std::string& affix = bound.string(0).text;
  if (affix.empty() || (prefix ? !text.starts_with(affix) : !text.ends_with(affix))) return self;
  return like(self, prefix ? text.substr(affix.size())
                           : text.substr(0, text.size() - affix.size()));
}

Value expandtabs_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "expandtabs", {"tabsize"});
  const size_t tab = bounded_size(bound.integer(0, 8), 1000);
  std::string out;
  size_t column = 0;
  for (const char c : text_of(self).text) {
    if (c == '\t') {
      const size_t spaces = tab > 0 ? tab - column % tab : 0;
      out.append(spaces, ' ');
      column += spaces;
    } else {
      out += c;
      column = c == '\n' || c == '\r' ? 0 : column + ((static_cast<unsigned char>(c) & 0xc0) != 0x80);
    }
    check_text_size(out.size());
  }
  return like(self, std::move(out));
}

Value format_method(const Value& self, Arguments& arguments) {
  return format_braces(text_of(self), arguments.positional, arguments.named);
}

Value format_map_method(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "format_map", {"mapping"}, 1);
  const Dict* dict = bound[0].dict();
  if (!dict) raise("TypeError: format_map() wants a mapping, not ", type_name(bound[0]));
  std::vector<std::pair<std::string, Value>> named;
  for (const auto& [key, value] : dict->entries()) {
    if (key.is_string()) named.emplace_back(key.string()->text, value);
  }
  return format_braces(text_of(self), {}, named);
}

Value isascii_method(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "isascii", {});
  return Value(text_of(self).ascii());
}

Value isprintable_method(const Value& self, Arguments& arguments) {
  const bool empty = text_of(self).text.empty();
  return empty ? Value(true) : all_method<unicode::is_printable>(self, arguments);
}

Value isidentifier_method(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "isidentifier", {});
  const std::u32string points = unicode::decode(text_of(self).text);
  return Value(!points.empty() && unicode::is_identifier_start(points[0]) &&
               std::all_of(points.begin(), points.end(), unicode::is_identifier_part));
}

Value istitle_method(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "istitle", {});
  bool inside = false, found = false;
  for (const char32_t c : unicode::decode(text_of(self).text)) {
    const bool capital = unicode::is_upper(c) || unicode::is_title(c);
    const bool small = unicode::is_lower(c);
    if ((capital && inside) || (small && !inside)) return Value(false);
    inside = capital || small;
    found |= inside;
  }
  return Value(found);
}

Value unsupported_method(const Value&, Arguments&) {
  refuse("the str methods encode, maketrans and translate are not supported");
}

constexpr Named<Method> kMethods[] = {
    {"capitalize", convert_method<unicode::capitalize>},
    {"casefold", convert_method<unicode::casefold>},
    {"center", justify_method<0>},
    {"count", count_method},
    {"encode", unsupported_method},
    {"endswith", affix_method<true>},
    {"expandtabs", expandtabs_method},
    {"find", find_method<false>},
    {"format", format_method},
    {"format_map", format_map_method},
    {"index", index_method<false>},
    {"isalnum", all_method<unicode::is_alnum>},
    {"isalpha", all_method<unicode::is_alpha>},
    {"isascii", isascii_method},
    {"isdecimal", all_method<unicode::is_decimal>},
    {"isdigit", all_method<unicode::is_digit>},
    {"isidentifier", isidentifier_method},
    {"islower", text_method<is_lower_text>},
    {"isnumeric", all_method<unicode::is_numeric>},
    {"isprintable", isprintable_method},
    {"isspace", all_method<unicode::is_space>},
    {"istitle", istitle_method},
    {"isupper", text_method<is_upper_text>},
    {"join", join_method},
    {"ljust", justify_method<-1>},
    {"lower", convert_method<unicode::lower>},
    {"lstrip", strip_method<true, false>},
    {"maketrans", unsupported_method},
    {"partition", partition_method<false>},
    {"removeprefix", remove_affix_method<true>},
    {"removesuffix", remove_affix_method<false>},
    {"replace", replace_method},
    {"rfind", find_method<true>},
    {"rindex", index_method<true>},
    {"rjust", justify_method<1>},
    {"rpartition", partition_method<true>},
    {"rsplit", split_method<true>},
    {"rstrip", strip_method<false, true>},
    {"split", split_method<false>},
    {"splitlines", splitlines_method},
    {"startswith", affix_method<false>},
    {"strip", strip_method<true, true>},
    {"swapcase", convert_method<unicode::swapcase>},
    {"title", convert_method<unicode::title>},
    {"translate", unsupported_method},
    {"upper", convert_method<unicode::upper>},
    {"zfill", zfill_method},
};

}  // namespace

const Method* find_string_method(const std::string& name) {
  for (const auto& method : kMethods) {
    if (name == method.name) return &method.function;
  }
  return nullptr;
}

}  // namespace lowbit::jinja

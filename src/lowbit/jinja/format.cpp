// format(value, spec) and "{}".format(...).
#include "lowbit/jinja/format.h"

#include <cmath>
#include <cstdio>

#include "lowbit/base/limits.h"
#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/print.h"
#include "lowbit/jinja/text.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

constexpr size_t kMaxWidth = limits::kTemplateStringBytes / 4;
constexpr int kMaxPrecision = 4000;  // of floats

struct Spec {
  std::string fill = " ";
  char align = '\0';  // < > = ^
  char sign = '-';    // + - space
  bool alternate = false;
  bool zero = false;
  size_t width = 0;
  char grouping = '\0';  // , _
  int precision = -1;
  char type = '\0';
};

class SpecParser {
 public:
  explicit SpecParser(std::string_view text) : text_(text) {}

  Spec parse() {
    fill_and_align();
    if (at("+- ")) spec_.sign = text_[i_++];
    if (at("z")) ++i_;
    if (at("#")) spec_.alternate = text_[i_++] == '#';
    if (at("0")) {
      ++i_;
      spec_.zero = true;
      if (!spec_.align) {
        spec_.fill = "0";
        spec_.align = '=';
      }
    }
    spec_.width = number(kMaxWidth, 0);
    if (at(",_")) spec_.grouping = text_[i_++];
    if (at(".")) {
      ++i_;
      if (!at("0123456789")) raise("ValueError: Format specifier missing precision");
      spec_.precision = static_cast<int>(number(kMaxWidth, 0));
    }
    if (i_ + 1 < text_.size()) raise("ValueError: Invalid format specifier '", text_, "'");
    if (i_ < text_.size()) spec_.type = text_[i_];
    return spec_;
  }

 private:
  bool at(std::string_view set) const {
    return i_ < text_.size() && set.find(text_[i_]) != std::string_view::npos;
  }

  void fill_and_align() {
    if (text_.empty()) return;
    const size_t bytes = unicode::sequence_bytes(text_[0]);
    const std::string_view kAligns = "<>=^";
    if (bytes < text_.size() && kAligns.find(text_[bytes]) != std::string_view::npos) {
      spec_.fill = text_.substr(0, bytes);
      spec_.align = text_[bytes];
      i_ = bytes + 1;
    } else if (at(kAligns)) {
      spec_.align = text_[i_++];
    }
  }

  size_t number(size_t limit, size_t fallback) {
    if (!at("0123456789")) return fallback;
    size_t value = 0;
    while (at("0123456789")) {
      value = value * 10 + static_cast<size_t>(text_[i_++] - '0');
      if (value > limit) refuse("a format of more than ", limit, " characters");
    }
    return value;
  }

  std::string_view text_;
  size_t i_ = 0;
  Spec spec_;
};

std::string filled(const Spec& spec, std::string text, char default_align) {
  const char align = spec.align ? spec.align : default_align;
  const size_t length = unicode::length(text);
  if (spec.width <= length) return text;
  const size_t missing = spec.width - length;
  const size_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  std::string out;
  for (size_t i = 0; i < left; ++i) out += spec.fill;
  out += text;
  for (size_t i = left; i < missing; ++i) out += spec.fill;
  return out;
}

std::string format_text(const Str& text, const Spec& spec) {
  if (spec.type && spec.type != 's') {
    raise("ValueError: Unknown format code '", spec.type, "' for object of type 'str'");
  }
  if (spec.align == '=' && !spec.zero) {
    raise("ValueError: '=' alignment not allowed in string format specifier");
  }
  if (spec.sign != '-' || spec.grouping || spec.alternate) {
    raise("ValueError: sign, ',' and '#' are not allowed in string format specifier");
  }
  Spec adjusted = spec;
  if (spec.align == '=') adjusted.align = '<';
  std::string shown = text.text;
  if (spec.precision >= 0) {
    shown.resize(unicode::offset(shown, static_cast<size_t>(spec.precision)));
  }
  return filled(adjusted, std::move(shown), '<');
}

// Puts a separator every `every` digits, counted from the right.
std::string grouped(const std::string& digits, char separator, size_t every) {
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % every == 0) out += separator;
    out += digits[i];
  }
  return out;
}

// sign, prefix, digits (grouped) and the rest (fraction, exponent), filled to the width.
std::string assemble(const Spec& spec, bool negative, const std::string& prefix,
                     std::string digits, const std::string& rest, size_t every) {
  const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  const std::string head = sign + prefix;
  if (spec.grouping) {
    // Zeros that fill take part in the grouping.
    while (spec.fill == "0" && spec.align == '=' &&
           head.size() + grouped("0" + digits, spec.grouping, every).size() + rest.size() <=
               spec.width) {
      digits.insert(digits.begin(), '0');
    }
    if (spec.fill == "0" && spec.align == '=' &&
        head.size() + grouped(digits, spec.grouping, every).size() + rest.size() < spec.width) {
      digits.insert(digits.begin(), '0');
    }
    digits = grouped(digits, spec.grouping, every);
  }
  if (spec.align != '=') return filled(spec, head + digits + rest, '>');
  Spec inner = spec;
  inner.align = '>';
  inner.width = spec.width > head.size() ? spec.width - head.size() : 0;
  return head + filled(inner, digits + rest, '>');
}

std::string format_real(double value, const Spec& spec) {
  if (spec.precision > kMaxPrecision) refuse("a precision of more than ", kMaxPrecision);
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double magnitude = std::fabs(value);
  std::string text;
  const char type = static_cast<char>(spec.type | (spec.type ? 0x20 : 0));
  if (std::isinf(value) || std::isnan(value)) {
    text = std::isnan(value) ? "nan" : "inf";
    if (spec.type == '%') text += '%';
  } else if (spec.type == '\0' && spec.precision < 0) {
    text = to_text(magnitude);
  } else if (spec.type == '\0') {
    text = format_float(magnitude, 'g', spec.precision == 0 ? 1 : spec.precision);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
  } else if (spec.type == '%') {
    text = format_float(magnitude * 100, 'f', spec.precision < 0 ? 6 : spec.precision) + "%";
  } else if (type == 'f' || type == 'e' || type == 'g' || spec.type == 'n') {
    text = format_float(magnitude, spec.type == 'n' ? 'g' : type,
                        spec.precision < 0 ? 6 : spec.precision, spec.alternate);
  } else {
    raise("ValueError: Unknown format code '", spec.type, "' for object of type 'float'");
  }
  if (spec.type >= 'A' && spec.type <= 'Z') {
    for (char& c : text) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  }
  const size_t end = text.find_first_not_of("0123456789");
  const size_t split = end == std::string::npos ? text.size() : end;
  return assemble(spec, negative, "", text.substr(0, split), text.substr(split), 3);
}

std::string format_integer(Int value, const Spec& spec) {
  const char type = spec.type ? spec.type : 'd';
  if (std::string_view("eEfFgG%").find(type) != std::string_view::npos) {
    return format_real(static_cast<double>(value), spec);
  }
  if (spec.precision >= 0) {
    raise("ValueError: Precision not allowed in integer format specifier");
  }
  if (type == 'c') {
    if (value < 0 || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
      raise("OverflowError: %c arg not in range(0x110000)");
    }
    std::string text;
    unicode::append(text, static_cast<char32_t>(value));
    return filled(spec, std::move(text), '<');
  }
  const unsigned base = type == 'b'   ? 2
                        : type == 'o' ? 8
                        : type == 'x' || type == 'X' ? 16
                        : type == 'd' || type == 'n' ? 10 : 0;
  if (base == 0) raise("ValueError: Unknown format code '", type, "' for object of type 'int'");
  if (base != 10 && spec.grouping == ',') {
    raise("ValueError: Cannot specify ',' with '", type, "'.");
  }
  std::string text = digits(value, base);
  if (type == 'X') text = unicode::upper(text);
  const std::string prefix = spec.alternate && base != 10 ? std::string("0") + type : "";
  return assemble(spec, value < 0, prefix, std::move(text), "", base == 10 ? 3 : 4);
}

}  // namespace

std::string format_float(double value, char type, int precision, bool alternate) {
  const char format[] = {'%', alternate ? '#' : '.', alternate ? '.' : '*', alternate ? '*' : type,
                         alternate ? type : '\0', '\0'};
  const int size = std::snprintf(nullptr, 0, format, precision, value);
  std::string text(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(text.data(), text.size(), format, precision, value);
  text.pop_back();
  return text;
}

std::string format_value(const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return to_text(value);
  const Spec spec = SpecParser(spec_text).parse();
  if (const Str* text = value.string()) return format_text(*text, spec);
  if (value.is_integral()) return format_integer(value.integer(), spec);
  if (value.is_float()) return format_real(value.real(), spec);
  raise("TypeError: unsupported format string passed to ", type_name(value), ".__format__");
}

namespace {

class BraceFormatter {
 public:
  BraceFormatter(const Values& positional, const std::vector<std::pair<std::string, Value>>& named)
      : positional_(positional), named_(named) {}

  std::string format(std::string_view text, int depth) {
    if (depth < 0) raise("ValueError: Max string recursion exceeded");
    std::string out;
    for (size_t i = 0; i < text.size();) {
      const char c = text[i++];
      if (c != '{' && c != '}') {
        out += c;
      } else if (i < text.size() && text[i] == c) {
        out += c;
        ++i;
      } else if (c == '}') {
        raise("ValueError: Single '}' encountered in format string");
      } else {
        out += field(inside(text, i), depth);
      }
      check_text_size(out.size());
    }
    return out;
  }

 private:
  // The text of a replacement field that begins at i, which moves behind it.
  static std::string_view inside(std::string_view text, size_t& i) {
    const size_t begin = i;
    for (int open = 1; i < text.size(); ++i) {
      if (text[i] == '{') ++open;
      if (text[i] == '}' && --open == 0) return text.substr(begin, i++ - begin);
    }
    raise("ValueError: expected '}' before end of string");
  }

  std::string field(std::string_view text, int depth) {
    size_t end = 0;  // of the field's name; brackets may hold anything
    for (bool bracket = false; end < text.size(); ++end) {
      if (text[end] == '[') bracket = true;
      if (text[end] == ']') bracket = false;
      if (!bracket && (text[end] == '!' || text[end] == ':')) break;
    }
    Value value = look_up(text.substr(0, end));
    std::string_view rest = text.substr(end);
    if (!rest.empty() && rest[0] == '!') {
      if (rest.size() < 2 || (rest.size() > 2 && rest[2] != ':')) {
        raise("ValueError: expected ':' after conversion specifier");
      }
      value = converted(value, rest[1]);
      rest.remove_prefix(2);
    }
    const std::string spec = rest.empty() ? "" : format(rest.substr(1), depth - 1);
    return format_value(value, spec);
  }

  static Value converted(const Value& value, char conversion) {
    if (conversion == 's') return Value::string(to_text(value));
    if (conversion == 'r') return Value::string(repr(value));
    if (conversion == 'a') refuse("the conversion !a in a format");
    raise("ValueError: Unknown conversion specifier '", conversion, "'");
  }

  static bool is_number(std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  }

  Value look_up(std::string_view name) {
    size_t end = name.find_first_of(".[");
    const std::string_view first = name.substr(0, end);
    Value value = argument(first);
    while (end < name.size()) {
      const bool attribute = name[end] == '.';
      const size_t stop = attribute ? name.find_first_of(".[", end + 1) : name.find(']', end + 1);
      if (!attribute && stop == std::string_view::npos) raise("ValueError: Missing ']' in format string");
      const std::string_view part = name.substr(end + 1, stop - end - 1);
      if (part.empty()) raise("ValueError: Empty attribute in format string");
      if (attribute) {
        value = get_attribute(value, std::string(part));
      } else {
        value = get_item(value, is_number(part) ? Value(parse_int(part, 10).value_or(0))
                                                : Value::string(std::string(part)));
      }
      end = attribute ? stop : stop + 1;
      if (!attribute && end < name.size() && name[end] != '.' && name[end] != '[') {
        raise("ValueError: Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  Value argument(std::string_view name) {
    if (name.empty() || is_number(name)) {
      if ((numbering_ == Numbering::kManual) == name.empty() && numbering_ != Numbering::kUnknown) {
        raise("ValueError: cannot switch between manual and automatic field numbering");
      }
      numbering_ = name.empty() ? Numbering::kAutomatic : Numbering::kManual;
      const Int index = name.empty() ? Int(next_++) : parse_int(name, 10).value_or(0);
      if (index >= static_cast<Int>(positional_.size())) {
        raise("IndexError: Replacement index ", to_text(index),
              " out of range for positional args tuple");
      }
      return positional_[static_cast<size_t>(index)];
    }
    for (const auto& [key, value] : named_) {
      if (key == name) return value;
    }
    raise("KeyError: ", repr(name));
  }

  enum class Numbering { kUnknown, kAutomatic, kManual };
  const Values& positional_;
  const std::vector<std::pair<std::string, Value>>& named_;
  Numbering numbering_ = Numbering::kUnknown;
  int next_ = 0;
};

}  // namespace

Value format_braces(const Str& format, const Values& positional,
                    const std::vector<std::pair<std::string, Value>>& named) {
  return Value::string(BraceFormatter(positional, named).format(format.text, 2), format.markup);
}

}  // namespace lowbit::jinja

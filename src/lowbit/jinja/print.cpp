#include "lowbit/jinja/print.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

__extension__ using Unsigned = unsigned __int128;

bool is_digit_in(char c, int base, int& digit) {
  if (c >= '0' && c <= '9') {
    digit = c - '0';
  } else if (c >= 'a' && c <= 'z') {
    digit = c - 'a' + 10;
  } else if (c >= 'A' && c <= 'Z') {
    digit = c - 'A' + 10;
  } else {
    return false;
  }
  return digit < base;
}

// Without surrounding white space, and with any script's digits as ASCII; others become '?'.
std::string ascii_number(std::string_view text) {
  std::u32string points = unicode::decode(text);
  while (!points.empty() && unicode::is_space(points.back())) points.pop_back();
  size_t first = 0;
  while (first < points.size() && unicode::is_space(points[first])) ++first;
  std::string out;
  for (size_t i = first; i < points.size(); ++i) {
    const int digit = unicode::decimal_value(points[i]);
    out += digit >= 0 ? static_cast<char>('0' + digit)
                      : points[i] < 0x80 ? static_cast<char>(points[i]) : '?';
  }
  return out;
}

// Takes away a base prefix that fits, as Python's int() does; 0 asks for the prefix.
bool strip_prefix(std::string_view& text, int& base) {
  int prefix = 0;
  if (text.size() > 1 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    prefix = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
  }
  if (prefix != 0 && (base == 0 || base == prefix)) {
    text.remove_prefix(2);
    if (!text.empty() && text[0] == '_') text.remove_prefix(1);
    base = prefix;
  } else if (base == 0) {
    base = 10;
    const bool zeros = text.find_first_not_of("0_") == std::string_view::npos;
    if (!text.empty() && text[0] == '0' && !zeros) return false;
  }
  return true;
}

std::string quoted(const Str& text) {
  return text.markup ? "Markup(" + repr(text.text) + ")" : repr(text.text);
}

std::string sequence_repr(const Sequence& sequence) {
  const bool list = sequence.type == Sequence::Type::kList;
  std::string out = list ? "[" : "(";
  for (size_t i = 0; i < sequence.items.size(); ++i) {
    if (i) out += ", ";
    out += repr(sequence.items[i]);
    charge_bytes(256);
  }
  if (!list && sequence.items.size() == 1) out += ",";
  return out + (list ? "]" : ")");
}

std::string dict_repr(const Dict& dict) {
  std::string out = "{";
  for (const auto& [key, value] : dict.entries()) {
    if (out.size() > 1) out += ", ";
    out += repr(key) + ": " + repr(value);
    charge_bytes(256);
  }
  return out + "}";
}

}  // namespace

std::string digits(Int value, unsigned base) {
  Unsigned rest = value < 0 ? -static_cast<Unsigned>(value) : static_cast<Unsigned>(value);
  std::string out;
  do {
    out += "0123456789abcdef"[static_cast<unsigned>(rest % base)];
    rest /= base;
  } while (rest != 0);
  std::reverse(out.begin(), out.end());
  return out;
}

std::string to_text(Int value) {
  std::string text = value < 0 ? "-" : "";
  return text.append(digits(value, 10));
}

std::string to_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto scientific = std::to_chars(buffer, buffer + sizeof buffer, value,
                                        std::chars_format::scientific);
  std::string text(buffer, scientific.ptr);
  const size_t e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), text.data() + text.size(),
                  exponent);
  if (exponent < -4 || exponent >= 16) return text;
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  text.assign(buffer, fixed.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

std::string to_text(const Value& value) {
  if (const Str* string = value.string()) return string->text;
  return value.is_undefined() ? "" : repr(value);
}

std::string hexadecimal(uint64_t value, int count) {
  const std::string text = digits(static_cast<Int>(value), 16);
  const auto width = static_cast<size_t>(count);
  return text.size() < width ? std::string(width - text.size(), '0') + text : text;
}

std::string repr(std::string_view text) {
  charge_bytes(text.size());
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < text.size();) {
    const char32_t c = unicode::decode_at(text, i);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (unicode::is_printable(c)) {
      unicode::append(out, c);
    } else if (c < 0x100) {
      out += "\\x" + hexadecimal(c, 2);
    } else {
      out += c < 0x10000 ? "\\u" + hexadecimal(c, 4) : "\\U" + hexadecimal(c, 8);
    }
  }
  return out + quote;
}

std::string repr(const Value& value) {
  const Recursion recursion;
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.boolean() ? "True" : "False";
  if (value.is_int()) return to_text(value.integer());
  if (value.is_float()) return to_text(value.real());
  if (const Str* string = value.string()) return quoted(*string);
  if (const Sequence* sequence = value.sequence()) return sequence_repr(*sequence);
  if (const Dict* dict = value.dict()) return dict_repr(*dict);
  return value.object()->repr();
}

std::optional<Int> parse_int(std::string_view source, int base) {
  const std::string number = ascii_number(source);
  std::string_view text = number;
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  if (!strip_prefix(text, base)) return std::nullopt;
  Int value = 0;
  bool after_digit = false, overflow = false;
  for (const char c : text) {
    int digit = 0;
    if (c == '_' && after_digit) {
      after_digit = false;
      continue;
    }
    if (!is_digit_in(c, base, digit)) return std::nullopt;
    overflow |= __builtin_mul_overflow(value, Int{base}, &value) ||
                __builtin_add_overflow(value, Int{digit}, &value);
    after_digit = true;
  }
  if (!after_digit) return std::nullopt;
  if (overflow) refuse("an integer of more than 127 bits");
  return negative ? -value : value;
}

std::optional<double> parse_float(std::string_view source) {
  const std::string number = ascii_number(source);
  std::string text;
  for (size_t i = 0; i < number.size(); ++i) {
    const auto is_digit = [&](size_t k) {
      return k < number.size() && number[k] >= '0' && number[k] <= '9';
    };
    if (number[i] != '_') {
      text += static_cast<char>(number[i] >= 'A' && number[i] <= 'Z' ? number[i] | 0x20 : number[i]);
    } else if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) {
      return std::nullopt;
    }
  }
  std::string_view rest = text;
  const bool negative = !rest.empty() && rest[0] == '-';
  if (!rest.empty() && (rest[0] == '-' || rest[0] == '+')) rest.remove_prefix(1);
  const double sign = negative ? -1.0 : 1.0;
  if (rest == "inf" || rest == "infinity") return sign * INFINITY;
  if (rest == "nan") return NAN;
  if (rest.empty() || !((rest[0] >= '0' && rest[0] <= '9') || rest[0] == '.')) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (end != rest.data() + rest.size() || error == std::errc::invalid_argument) return std::nullopt;
  if (error == std::errc::result_out_of_range) value = std::strtod(text.c_str(), nullptr) * sign;
  return sign * value;
}

}  // namespace lowbit::jinja

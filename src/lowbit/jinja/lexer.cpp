#include "lowbit/jinja/lexer.h"

#include <charconv>

#include "lowbit/jinja/print.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

using Type = Token::Type;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// \r\n and \r become \n; one newline at the end goes.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      out += '\n';
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Token> run() {
    while (offset_ < source_.size()) data();
    emit(Type::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool at(std::string_view text, size_t offset) const {
    return offset <= source_.size() && source_.compare(offset, text.size(), text) == 0;
  }

  // Offset behind the white space at `offset`.
  size_t skip_space(size_t offset) const {
    while (offset < source_.size()) {
      size_t next = offset;
      if (!unicode::is_space(unicode::decode_at(source_, next))) break;
      offset = next;
    }
    return offset;
  }

  // Line and column of offset_, which only moves forward.
  Position here() {
    for (; marked_ < offset_; ++marked_) {
      if (source_[marked_] == '\n') {
        position_ = {position_.line + 1, 1};
      } else if ((static_cast<unsigned char>(source_[marked_]) & 0xc0) != 0x80) {
        ++position_.column;
      }
    }
    return position_;
  }

  [[noreturn]] void fail(const std::string& message) {
    throw TemplateError(ErrorKind::kCorruptFile, "TemplateSyntaxError: " + message, here());
  }

  void emit(Type type, std::string text) {
    tokens_.push_back({type, std::move(text), Value(), here()});
  }

  void move_to(size_t offset) {
    line_starting_ = offset > 0 && source_[offset - 1] == '\n';
    offset_ = offset;
  }

  // The text before a tag at `tag`, stripped as its sign (-, + or none) says.
  void emit_data(size_t tag, char sign, bool variable) {
    std::string_view text = std::string_view(source_).substr(offset_, tag - offset_);
    if (sign == '-') {
      text = text.substr(0, stripped_size(text));
    } else if (sign != '+' && !variable) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line > 0 || line_starting_) && skip_space(offset_ + line) >= tag) {
        text = text.substr(0, line);
      }
    }
    if (!text.empty()) emit(Type::kData, std::string(text));
  }

  static size_t stripped_size(std::string_view text) {
    size_t size = text.size();
    while (size > 0) {
      size_t begin = size - 1;
      while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
      size_t next = begin;
      if (!unicode::is_space(unicode::decode_at(text, next))) break;
      size = begin;
    }
    return size;
  }

  // Text up to the next tag, and that tag.
  void data() {
    size_t tag = source_.find('{', offset_);
    while (tag != std::string::npos && tag + 1 < source_.size() && source_[tag + 1] != '%' &&
           source_[tag + 1] != '{' && source_[tag + 1] != '#') {
      tag = source_.find('{', tag + 1);
    }
    if (tag == std::string::npos || tag + 1 >= source_.size()) {
      emit(Type::kData, source_.substr(offset_));
      offset_ = source_.size();
      return;
    }
    const char kind = source_[tag + 1];
    if (kind == '%' && raw(tag)) return;
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    emit_data(tag, sign, kind == '{');
    move_to(tag);
    const size_t inside = tag + 2 + (sign == '-' || sign == '+' ? 1 : 0);
    if (kind == '#') {
      comment(inside);
      return;
    }
    emit(kind == '%' ? Type::kBlockBegin : Type::kVariableBegin, "");
    offset_ = inside;
    code(kind == '%');
  }

  // {% raw %} ... {% endraw %}; false if the tag is another one.
  bool raw(size_t tag) {
    size_t end = tag + 2;
    const char sign = end < source_.size() ? source_[end] : '\0';
    if (sign == '-' || sign == '+') ++end;
    end = skip_space(end);
    if (!at("raw", end)) return false;
    end = skip_space(end + 3);
    const bool strip = at("-%}", end);
    if (!strip && !at("%}", end)) return false;
    emit_data(tag, sign, false);
    move_to(strip ? skip_space(end + 3) : end + 2);
    for (size_t close = source_.find("{%", offset_); close != std::string::npos;
         close = source_.find("{%", close + 1)) {
      size_t inside = close + 2;
      const char close_sign = inside < source_.size() ? source_[inside] : '\0';
      if (close_sign == '-' || close_sign == '+') ++inside;
      inside = skip_space(inside);
      if (!at("endraw", inside)) continue;
      const size_t behind = tag_end(skip_space(inside + 6));
      if (behind == 0) continue;
      emit_data(close, close_sign, false);
      move_to(behind);
      return true;
    }
    if (offset_ < source_.size()) fail("Missing end of raw directive");
    return true;
  }

  // Offset behind "%}", "-%}" or "+%}" and what they strip; 0 if none of them is at `offset`.
  size_t tag_end(size_t offset, const char* close = "%}") const {
    if (at(close, offset)) return offset + 2 + (at("\n", offset + 2) ? 1 : 0);
    if (!at(close, offset + 1)) return 0;
    if (at("+", offset)) return offset + 3;
    return at("-", offset) ? skip_space(offset + 3) : 0;
  }

  void comment(size_t inside) {
    const size_t close = source_.find("#}", inside);
    if (close == std::string::npos && inside < source_.size()) fail("Missing end of comment tag");
    if (close == std::string::npos) {
      offset_ = source_.size();
      return;
    }
    const bool sign = close > inside && (source_[close - 1] == '-' || source_[close - 1] == '+');
    move_to(tag_end(sign ? close - 1 : close, "#}"));
  }

  // Tokens of a statement or an expression, until its end.
  void code(bool block) {
    std::string open;  // closing brackets to come
    while (offset_ < source_.size()) {
      if (open.empty() && close(block)) return;
      token(open);
    }
  }

  bool close(bool block) {
    size_t behind = 0;
    if (block) {
      behind = tag_end(offset_);
    } else if (at("}}", offset_)) {
      behind = offset_ + 2;
    } else if (at("-}}", offset_)) {
      behind = skip_space(offset_ + 3);
    }
    if (behind == 0) return false;
    emit(block ? Type::kBlockEnd : Type::kVariableEnd, "");
    move_to(behind);
    return true;
  }

  void token(std::string& open) {
    const size_t behind_space = skip_space(offset_);
    if (behind_space > offset_) {
      offset_ = behind_space;
      return;
    }
    const char c = source_[offset_];
    size_t next = offset_;
    const char32_t point = unicode::decode_at(source_, next);
    if (is_digit(c)) {
      number();
    } else if (unicode::is_identifier_start(point)) {
      name();
    } else if (c == '"' || c == '\'') {
      string(c);
    } else {
      operator_token(open);
    }
  }

  void name() {
    size_t end = offset_;
    while (end < source_.size()) {
      size_t next = end;
      if (!unicode::is_identifier_part(unicode::decode_at(source_, next))) break;
      end = next;
    }
    emit(Type::kName, source_.substr(offset_, end - offset_));
    offset_ = end;
  }

  // End of digits with single underscores between them; `offset` if there is none.
  size_t digits_end(size_t offset) const {
    size_t end = offset;
    while (end < source_.size() && is_digit(source_[end])) {
      do {
        ++end;
      } while (end < source_.size() && is_digit(source_[end]));
      if (end + 1 < source_.size() && source_[end] == '_' && is_digit(source_[end + 1])) ++end;
    }
    return end;
  }

  size_t float_end() const {
    if (offset_ > 0 && source_[offset_ - 1] == '.') return offset_;
    size_t end = digits_end(offset_);
    bool is_float = false;
    if (at(".", end) && digits_end(end + 1) > end + 1) {
      end = digits_end(end + 1);
      is_float = true;
    }
    if (at("e", end) || at("E", end)) {
      const size_t exponent = end + 1 + (at("+", end + 1) || at("-", end + 1) ? 1 : 0);
      if (digits_end(exponent) > exponent) {
        end = digits_end(exponent);
        is_float = true;
      }
    }
    return is_float ? end : offset_;
  }

  // 0b, 0o, 0x, decimal without leading zeros, or zeros.
  size_t integer_end() const {
    const auto is_base_digit = [&](size_t i, int base) {
      return i < source_.size() && static_cast<unsigned char>(source_[i]) < 0x80 &&
             parse_int(std::string_view(source_).substr(i, 1), base).has_value() &&
             source_[i] != ' ';
    };
    if (source_[offset_] != '0') return digits_end(offset_);
    const char letter = offset_ + 1 < source_.size() ? source_[offset_ + 1] | 0x20 : ' ';
    const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    size_t end = offset_ + (base ? 2 : 1);
    const auto digit = [&](size_t i) { return base ? is_base_digit(i, base) : at("0", i); };
    while (digit(end) || (at("_", end) && digit(end + 1))) ++end;
    return base && end == offset_ + 2 ? offset_ + 1 : end;
  }

  void number() {
    const bool is_float = float_end() > offset_;
    const size_t end = is_float ? float_end() : integer_end();
    const std::string text = source_.substr(offset_, end - offset_);
    emit(Type::kNumber, text);
    if (is_float) {
      tokens_.back().number = Value(parse_float(text).value_or(0));
    } else {
      try {
        tokens_.back().number = Value(parse_int(text, 0).value_or(0));
      } catch (const TemplateError& error) {
        throw TemplateError(error.kind(), error.what(), here());
      }
    }
    offset_ = end;
  }

  void string(char quote) {
    size_t end = offset_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("unexpected char " + repr(std::string(1, quote)));
    const std::string_view inside =
        std::string_view(source_).substr(offset_ + 1, end - offset_ - 1);
    try {
      emit(Type::kString, unescape(inside));
    } catch (const TemplateError& error) {
      throw TemplateError(error.kind(), error.what(), here());
    }
    offset_ = end + 1;
  }

  void operator_token(std::string& open) {
    for (const char* pair : {"**", "//", "==", "!=", ">=", "<="}) {
      if (at(pair, offset_)) {
        emit(Type::kOperator, pair);
        offset_ += 2;
        return;
      }
    }
    const char c = source_[offset_];
    if (std::string_view("+-/*%~[](){}<>=.:|,;").find(c) == std::string_view::npos) {
      fail("unexpected char " +
           repr(source_.substr(offset_, unicode::sequence_bytes(source_[offset_]))));
    }
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) fail("unexpected '" + std::string(1, c) + "'");
      if (open.back() != c) {
        fail("unexpected '" + std::string(1, c) + "', expected '" + open.back() + "'");
      }
      open.pop_back();
    }
    emit(Type::kOperator, std::string(1, c));
    ++offset_;
  }

  std::string source_;
  size_t offset_ = 0;
  size_t marked_ = 0;  // position_ is that of this offset
  Position position_{1, 1};
  bool line_starting_ = true;  // offset_ begins a line
  std::vector<Token> tokens_;
};

// The code point of `count` digits at `offset`, which moves behind them.
char32_t numbered(std::string_view text, size_t& offset, size_t count, const char* escape) {
  const std::string_view digits = text.substr(offset, count);
  char32_t value = 0;
  uint32_t parsed = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), parsed, 16);
  if (digits.size() < count || error != std::errc() || end != digits.data() + count) {
    raise("TemplateSyntaxError: truncated ", escape, " escape in a string");
  }
  value = parsed;
  if (value > 0x10ffff) raise("TemplateSyntaxError: illegal Unicode character in a string");
  if (value >= 0xd800 && value < 0xe000) refuse("half a surrogate pair in a string");
  offset += count;
  return value;
}

// What stands behind a backslash at `offset`, which moves behind it.
void append_escape(std::string& out, std::string_view text, size_t& offset) {
  const char c = text[offset++];
  constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeanings = "\\'\"\a\b\f\n\r\t\v";
  if (const size_t known = kLetters.find(c); known != std::string_view::npos) {
    out += kMeanings[known];
  } else if (c >= '0' && c <= '7') {
    char32_t value = static_cast<char32_t>(c - '0');
    for (int i = 0; i < 2 && offset < text.size() && text[offset] >= '0' && text[offset] <= '7';
         ++i) {
      value = value * 8 + static_cast<char32_t>(text[offset++] - '0');
    }
    unicode::append(out, value);
  } else if (c == 'x') {
    unicode::append(out, numbered(text, offset, 2, "\\xXX"));
  } else if (c == 'u') {
    unicode::append(out, numbered(text, offset, 4, "\\uXXXX"));
  } else if (c == 'U') {
    unicode::append(out, numbered(text, offset, 8, "\\UXXXXXXXX"));
  } else if (c == 'N') {
    refuse("\\N{name} in a string");
  } else if (static_cast<unsigned char>(c) >= 0x80) {
    // jinja2 turns the character into an escape first, whose backslash this one then quotes.
    const char32_t point = unicode::decode_at(text, --offset);
    out += point < 0x100     ? "\\x" + hexadecimal(point, 2)
           : point < 0x10000 ? "\\u" + hexadecimal(point, 4)
                             : "\\U" + hexadecimal(point, 8);
  } else if (c != '\n') {
    out += '\\';
    out += c;
  }
}

}  // namespace

std::string unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '\\' && i + 1 < text.size()) {
      append_escape(out, text, ++i);
    } else {
      out += text[i++];
    }
  }
  return out;
}

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace lowbit::jinja

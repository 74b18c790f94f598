// "%-5s and %(name)d" % arguments
#include <cmath>

#include "lowbit/base/limits.h"
#include "lowbit/jinja/arguments.h"
#include "lowbit/jinja/format.h"
#include "lowbit/jinja/operators.h"
#include "lowbit/jinja/print.h"
#include "lowbit/jinja/text.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

class PercentFormatter {
 public:
  PercentFormatter(const Str& format, const Value& arguments)
      : text_(format.text), markup_(format.markup), arguments_(arguments) {
    const Sequence* sequence = arguments.sequence();
    tuple_ = sequence && sequence->type != Sequence::Type::kList ? sequence : nullptr;
  }

  std::string format() {
    while (i_ < text_.size()) {
      const char c = text_[i_++];
      if (c == '%') {
        conversion();
      } else {
        out_ += c;
      }
      check_text_size(out_.size());
    }
    const bool all_used = tuple_ ? used_ >= tuple_->items.size() : used_ > 0;
    // To Python, whatever can be subscripted may be a mapping.
    const bool mapping = arguments_.dict() || (arguments_.sequence() && !tuple_) ||
                         arguments_.is_undefined() || arguments_.object_as<Range>();
    if (!all_used && !mapping) {
      raise("TypeError: not all arguments converted during string formatting");
    }
    return std::move(out_);
  }

 private:
  struct Directive {
    bool left = false, plus = false, space = false, alternate = false, zero = false;
    Int width = 0, precision = -1;
    char type = '\0';
    const Value* value = nullptr;  // by name
  };

  char current() const {
    if (i_ >= text_.size()) raise("ValueError: incomplete format");
    return text_[i_];
  }

  const Value& next() {
    if (tuple_ ? used_ >= tuple_->items.size() : used_ > 0) {
      raise("TypeError: not enough arguments for format string");
    }
    return tuple_ ? tuple_->items[used_++] : (++used_, arguments_);
  }

  Int number() {
    if (current() == '*') {
      ++i_;
      const Value& value = next();
      if (!value.is_integral()) raise("TypeError: * wants int");
      return value.integer();
    }
    Int value = 0;
    while (i_ < text_.size() && text_[i_] >= '0' && text_[i_] <= '9') {
      value = value * 10 + (text_[i_++] - '0');
      if (value > static_cast<Int>(limits::kTemplateStringBytes)) refuse("a format width");
    }
    return value;
  }

  const Value* named() {
    const Dict* dict = arguments_.dict();
    if (!dict) raise("TypeError: format requires a mapping");
    const size_t begin = ++i_;
    for (int open = 1; open > 0; ++i_) {
      if (current() == '(') ++open;
      if (current() == ')') --open;
    }
    const std::string name = text_.substr(begin, i_ - begin - 1);
    const Value* value = dict->find(name);
    if (!value) raise("KeyError: ", repr(name));
    return value;
  }

  void conversion() {
    Directive d;
    if (current() == '(') d.value = named();
    for (;; ++i_) {
      const char c = current();
      if (c == '-')
        d.left = true;
      else if (c == '+')
        d.plus = true;
      else if (c == ' ')
        d.space = true;
      else if (c == '#')
        d.alternate = true;
      else if (c == '0')
        d.zero = true;
      else
        break;
    }
    d.width = number();
    if (d.width < 0) {
      d.left = true;
      d.width = -d.width;
    }
    if (current() == '.') {
      ++i_;
      current();
      d.precision = std::max<Int>(number(), 0);
    }
    while (current() == 'h' || current() == 'l' || current() == 'L') ++i_;
    d.type = text_[i_++];
    if (d.type == '%') {
      out_ += '%';
      return;
    }
    constexpr std::string_view kTypes = "srdiuoxXeEfFgGca";
    if (kTypes.find(d.type) == std::string_view::npos) {
      raise("ValueError: unsupported format character '", d.type, "'");
    }
    convert(d, d.value ? *d.value : next());
  }

  void convert(const Directive& d, const Value& value) {
    if (d.type == 's' || d.type == 'r') {
      std::string text = d.type == 's' ? to_text(value) : repr(value);
      const bool escaped = d.type == 's' && value.is_string() && value.string()->markup;
      if (markup_ && !escaped) text = escape_html(text);
      if (d.precision >= 0) {
        text.resize(unicode::offset(text, bounded_size(d.precision, limits::kTemplateStringBytes)));
      }
      put(d, "", text, false);
    } else if (d.type == 'c') {
      put(d, "", character(value), false);
    } else if (d.type == 'a') {
      refuse("the conversion %a in a format");
    } else if (std::string_view("eEfFgG").find(d.type) != std::string_view::npos) {
      real(d, value);
    } else {
      integer(d, value);
    }
  }

  static std::string character(const Value& value) {
    if (value.is_string() && value.string()->length == 1) return value.string()->text;
    if (!value.is_integral()) raise("TypeError: %c requires int or char");
    const Int code = value.integer();
    if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
      raise("OverflowError: %c arg not in range(0x110000)");
    }
    std::string text;
    unicode::append(text, static_cast<char32_t>(code));
    return text;
  }

  void integer(const Directive& d, const Value& value) {
    require_defined(value);
    const bool decimal = d.type == 'd' || d.type == 'i' || d.type == 'u';
    if (!value.is_integral() && !(decimal && value.is_float())) {
      raise("TypeError: %", d.type, " format: a real number is required, not ", type_name(value));
    }
    if (value.is_float() && !(std::fabs(value.real()) < 1e38)) refuse("%d of a large float");
    const Int number = value.is_float() ? static_cast<Int>(value.real()) : value.integer();
    std::string text = digits(number, decimal ? 10 : d.type == 'o' ? 8 : 16);
    if (d.type == 'X') text = unicode::upper(text);
    if (d.precision > static_cast<Int>(text.size())) {
      text.insert(0, bounded_size(d.precision, 1 << 20) - text.size(), '0');
    }
    std::string head = number < 0 ? "-" : d.plus ? "+" : d.space ? " " : "";
    if (d.alternate && !decimal) head += std::string("0") + d.type;
    put(d, head, text, d.zero);
  }

  void real(const Directive& d, const Value& value) {
    require_defined(value);
    if (!value.is_number()) raise("TypeError: must be real number, not ", type_name(value));
    const double number = value.real();
    const bool negative = std::signbit(number) && !std::isnan(number);
    const auto precision = static_cast<int>(bounded_size(d.precision < 0 ? 6 : d.precision, 4000));
    std::string text =
        format_float(std::fabs(number), static_cast<char>(d.type | 0x20), precision, d.alternate);
    if (d.type >= 'A' && d.type <= 'Z') text = unicode::upper(text);
    put(d, negative ? "-" : d.plus ? "+" : d.space ? " " : "", text, d.zero);
  }

  void put(const Directive& d, const std::string& head, const std::string& text, bool zeros) {
    const size_t width = bounded_size(d.width, limits::kTemplateStringBytes);
    const size_t length = head.size() + unicode::length(text);
    const size_t missing = width > length ? width - length : 0;
    check_text_size(out_.size() + missing + text.size());
    if (!d.left && !zeros) out_.append(missing, ' ');
    out_ += head;
    if (!d.left && zeros) out_.append(missing, '0');
    out_ += text;
    if (d.left) out_.append(missing, ' ');
  }

  const std::string& text_;
  bool markup_;
  const Value& arguments_;
  const Sequence* tuple_;
  size_t used_ = 0;
  size_t i_ = 0;
  std::string out_;
};

}  // namespace

Value format_percent(const Str& format, const Value& arguments) {
  return Value::string(PercentFormatter(format, arguments).format(), format.markup);
}

}  // namespace lowbit::jinja

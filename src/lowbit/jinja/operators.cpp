#include "lowbit/jinja/operators.h"

#include <cmath>
#include <functional>

#include "lowbit/base/limits.h"
#include "lowbit/jinja/format.h"
#include "lowbit/jinja/print.h"

namespace lowbit::jinja {

namespace {

const char* symbol(Operator op) {
  constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
  return kSymbols[static_cast<int>(op)];
}

[[noreturn]] void raise_operands(Operator op, const Value& a, const Value& b) {
  raise("TypeError: unsupported operand type(s) for ", symbol(op), ": '", type_name(a), "' and '",
        type_name(b), "'");
}

[[noreturn]] void raise_zero_division() { raise("ZeroDivisionError: division by zero"); }

[[noreturn]] void refuse_large() { refuse("an integer of more than 127 bits"); }

Int floor_divide(Int a, Int b) {
  const Int quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Int checked_multiply(Int a, Int b) {
  Int out;
  if (__builtin_mul_overflow(a, b, &out)) refuse_large();
  return out;
}

Value integer_arithmetic(Operator op, Int a, Int b) {
  Int out = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &out)) refuse_large();
      return Value(out);
    case Operator::kSub:
      if (__builtin_sub_overflow(a, b, &out)) refuse_large();
      return Value(out);
    case Operator::kMul:
      return Value(checked_multiply(a, b));
    case Operator::kDiv:
      if (b == 0) raise_zero_division();
      return Value(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDiv:
      if (b == 0) raise_zero_division();
      return b == -1 ? integer_arithmetic(Operator::kSub, 0, a) : Value(floor_divide(a, b));
    case Operator::kMod:
      if (b == 0) raise_zero_division();
      return b == -1 ? Value(0) : Value(a - floor_divide(a, b) * b);
    case Operator::kPow:
      break;
  }
  return power(Value(a), Value(b));
}

double float_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

double float_floor_divide(double a, double b) {
  const double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (rest < 0) != (b < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

Value float_arithmetic(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd: return Value(a + b);
    case Operator::kSub: return Value(a - b);
    case Operator::kMul: return Value(a * b);
    case Operator::kDiv:
    case Operator::kFloorDiv:
    case Operator::kMod:
      if (b == 0) raise_zero_division();
      if (op == Operator::kDiv) return Value(a / b);
      return Value(op == Operator::kMod ? float_modulo(a, b) : float_floor_divide(a, b));
    case Operator::kPow:
      break;
  }
  return power(Value(a), Value(b));
}

Value add_sequences(const Value& a, const Value& b) {
  const Sequence* left = a.sequence();
  const Sequence* right = b.sequence();
  const bool lists = left->type == Sequence::Type::kList;
  if (lists != (right->type == Sequence::Type::kList)) raise_operands(Operator::kAdd, a, b);
  Values items = left->items;
  items.insert(items.end(), right->items.begin(), right->items.end());
  return lists ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

// dict | dict and set operators of views are not in the language; everything else is here.
Value other_arithmetic(Operator op, const Value& a, const Value& b) {
  if (op == Operator::kMod && a.is_string()) return format_percent(*a.string(), b);
  if (a.is_undefined()) raise_undefined(a);
  if (b.is_undefined()) raise_undefined(b);
  if (op == Operator::kAdd && a.is_string() && b.is_string()) {
    return concatenate(*a.string(), *b.string());
  }
  if (op == Operator::kAdd && a.sequence() && b.sequence()) return add_sequences(a, b);
  if (op == Operator::kMul && b.is_integral() && (a.is_string() || a.sequence())) {
    return repeat(a, b.integer());
  }
  if (op == Operator::kMul && a.is_integral() && (b.is_string() || b.sequence())) {
    return repeat(b, a.integer());
  }
  raise_operands(op, a, b);
}

bool equal_sequences(const Sequence& a, const Sequence& b) {
  if ((a.type == Sequence::Type::kList) != (b.type == Sequence::Type::kList)) return false;
  if (a.items.size() != b.items.size()) return false;
  charge_elements(a.items.size() * 4);
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!identical(a.items[i], b.items[i]) && !equal(a.items[i], b.items[i])) return false;
  }
  return true;
}

bool equal_dicts(const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  charge_elements(a.size() * 4);
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.find(key);
    if (!other || !(identical(value, *other) || equal(value, *other))) return false;
  }
  return true;
}

// a < b, or a <= b if or_equal; sequences by the first element that differs.
bool ordered(const Value& a, const Value& b, bool or_equal, const char* symbol) {
  const Recursion recursion;
  if (a.is_integral() && b.is_integral()) {
    return or_equal ? a.integer() <= b.integer() : a.integer() < b.integer();
  }
  if (a.is_number() && b.is_number()) {
    return or_equal ? a.real() <= b.real() : a.real() < b.real();
  }
  if (a.is_string() && b.is_string()) {
    charge_bytes(std::min(a.string()->text.size(), b.string()->text.size()));
    const int order = a.string()->text.compare(b.string()->text);
    return or_equal ? order <= 0 : order < 0;
  }
  if (a.is_undefined()) raise_undefined(a);
  if (b.is_undefined()) raise_undefined(b);
  const Sequence* x = a.sequence();
  const Sequence* y = b.sequence();
  if (!x || !y || (x->type == Sequence::Type::kList) != (y->type == Sequence::Type::kList)) {
    raise("TypeError: '", symbol, "' not supported between instances of '", type_name(a),
          "' and '", type_name(b), "'");
  }
  for (size_t i = 0; i < x->items.size() && i < y->items.size(); ++i) {
    charge_elements(4);
    if (identical(x->items[i], y->items[i]) || equal(x->items[i], y->items[i])) continue;
    return ordered(x->items[i], y->items[i], or_equal, symbol);
  }
  return or_equal ? x->items.size() <= y->items.size() : x->items.size() < y->items.size();
}

size_t hash_sequence(const Sequence& sequence) {
  const Recursion recursion;
  size_t hash = sequence.items.size();
  for (const Value& item : sequence.items) hash = hash * 1000003 + hash_value(item);
  charge_elements(sequence.items.size());
  return hash;
}

}  // namespace

Value arithmetic(Operator op, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return integer_arithmetic(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return float_arithmetic(op, a.real(), b.real());
  return other_arithmetic(op, a, b);
}

Value power(const Value& base, const Value& exponent) {
  if (base.is_integral() && exponent.is_integral() && exponent.integer() >= 0) {
    Int result = 1, square = base.integer();
    for (Int rest = exponent.integer(); rest > 0;) {
      if (rest % 2 == 1) result = checked_multiply(result, square);
      rest /= 2;
      if (rest > 0) square = (square == 0 || square == 1) ? square : checked_multiply(square, square);
    }
    return Value(result);
  }
  const double a = base.real(), b = exponent.real();
  if (a == 0 && b < 0) raise("ZeroDivisionError: 0.0 cannot be raised to a negative power");
  if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b)) {
    refuse("a negative number to a fractional power gives a complex number");
  }
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
    raise("OverflowError: (34, 'Numerical result out of range')");
  }
  return Value(result);
}

Value negate(const Value& value) {
  require_defined(value);
  if (value.is_integral()) return integer_arithmetic(Operator::kSub, 0, value.integer());
  if (value.is_float()) return Value(-value.real());
  raise("TypeError: bad operand type for unary -: '", type_name(value), "'");
}

Value positive(const Value& value) {
  require_defined(value);
  if (value.is_integral()) return Value(value.integer());
  if (value.is_float()) return value;
  raise("TypeError: bad operand type for unary +: '", type_name(value), "'");
}

Value absolute(const Value& value) {
  if (value.is_integral()) return value.integer() < 0 ? negate(value) : Value(value.integer());
  if (value.is_float()) return Value(std::fabs(value.real()));
  require_defined(value);
  raise("TypeError: bad operand type for abs(): '", type_name(value), "'");
}

bool identical(const Value& a, const Value& b) {
  if (a.storage().index() != b.storage().index()) return false;
  if (a.is_none() || a.is_undefined()) return true;
  if (a.is_bool()) return a.boolean() == b.boolean();
  if (a.is_int()) return a.integer() == b.integer();
  if (a.is_string()) return a.string() == b.string() || a.string()->text == b.string()->text;
  if (a.sequence()) return a.sequence() == b.sequence();
  if (a.dict()) return a.dict() == b.dict();
  return !a.is_float() && a.object() == b.object();
}

bool equal(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (a.is_number() && b.is_number()) return a.real() == b.real();
  if (a.is_string() && b.is_string()) {
    charge_bytes(a.string()->length == b.string()->length ? a.string()->text.size() : 0);
    return a.string()->text == b.string()->text;
  }
  if (a.storage().index() != b.storage().index() || a.is_number()) return false;
  if (a.is_none() || a.is_undefined()) return true;
  const Recursion recursion;
  if (a.sequence()) return equal_sequences(*a.sequence(), *b.sequence());
  if (a.dict()) return a.dict() == b.dict() || equal_dicts(*a.dict(), *b.dict());
  return a.object()->equals(*b.object());
}

bool less(const Value& a, const Value& b) { return ordered(a, b, false, "<"); }

bool compare(Comparison op, const Value& a, const Value& b) {
  switch (op) {
    case Comparison::kEq: return equal(a, b);
    case Comparison::kNe: return !equal(a, b);
    case Comparison::kLt: return ordered(a, b, false, "<");
    case Comparison::kLe: return ordered(a, b, true, "<=");
    case Comparison::kGt: return ordered(b, a, false, ">");
    case Comparison::kGe: return ordered(b, a, true, ">=");
    case Comparison::kIn: return contains(b, a);
    case Comparison::kNotIn: return !contains(b, a);
  }
  return false;
}

bool contains(const Value& container, const Value& x) {
  if (const Str* text = container.string()) {
    if (!x.is_string()) {
      raise("TypeError: 'in <string>' requires string as left operand, not ", type_name(x));
    }
    charge_bytes(text->text.size());
    return text->text.find(x.string()->text) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) return dict->find(x) != nullptr;
  if (const auto* range = container.object_as<Range>(); range && x.is_integral()) {
    return range->contains(x.integer());
  }
  const auto* view = container.object_as<DictView>();
  if (view && view->part == DictView::Part::kKeys) return view->dict->find(x) != nullptr;
  if (!is_iterable(container)) {
    raise("TypeError: argument of type '", type_name(container), "' is not iterable");
  }
  Iteration iteration(container);
  while (const auto item = iteration.next()) {
    if (identical(*item, x) || equal(*item, x)) return true;
  }
  return false;
}

size_t hash_text(std::string_view text) { return std::hash<std::string_view>()(text); }

size_t hash_value(const Value& value) {
  if (const Str* text = value.string()) {
    charge_bytes(text->text.size());
    return hash_text(text->text);
  }
  if (value.is_number()) return std::hash<double>()(value.real());  // 1 == 1.0 == True
  const Sequence* sequence = value.sequence();
  if (sequence && sequence->type != Sequence::Type::kList) return hash_sequence(*sequence);
  const auto* view = value.object_as<DictView>();
  if (sequence || value.dict() || (view && view->part != DictView::Part::kValues)) {
    raise("TypeError: unhashable type: '", type_name(value), "'");
  }
  if (const auto* range = value.object_as<Range>()) return *range->length();
  if (value.object()) return std::hash<const void*>()(value.object());
  return value.is_none() ? 1 : 2;
}

Value concatenate(const Str& a, const Str& b) {
  if (a.markup == b.markup) return Value::string(a.text + b.text, a.markup);
  return Value::string((a.markup ? a.text : escape_html(a.text)) +
                           (b.markup ? b.text : escape_html(b.text)),
                       true);
}

Value repeat(const Value& value, Int count) {
  const Str* string = value.string();
  const size_t size = string ? string->text.size() : value.sequence()->items.size();
  const size_t cap = string ? limits::kTemplateStringBytes : limits::kTemplateElements;
  if (count > 0 && size > 0 && count > static_cast<Int>(cap / size)) {
    refuse("repeating ", size, string ? " bytes " : " elements ", to_text(count),
           " times gives more than ", cap);
  }
  const size_t times = count > 0 && size > 0 ? static_cast<size_t>(count) : 0;
  if (string) {
    std::string text;
    text.reserve(size * times);
    for (size_t i = 0; i < times; ++i) text += string->text;
    return Value::string(std::move(text), string->markup);
  }
  const MemoryCharge room(size * times * sizeof(Value));
  Values items;
  items.reserve(size * times);
  for (size_t i = 0; i < times; ++i) {
    items.insert(items.end(), value.sequence()->items.begin(), value.sequence()->items.end());
  }
  const bool list = value.sequence()->type == Sequence::Type::kList;
  return list ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&#34;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

}  // namespace lowbit::jinja

// jinja2's filters of numbers.
#include <cmath>

#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/format.h"
#include "lowbit/jinja/operators.h"
#include "lowbit/jinja/print.h"

namespace lowbit::jinja {

namespace {

Value filter_abs(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "abs", {});
  return absolute(value);
}

// int(float); none where Python raises ValueError or OverflowError.
std::optional<Int> truncated(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::fabs(value) >= 0x1p126) refuse("an integer of more than 127 bits");
  return static_cast<Int>(value);
}

Value filter_int(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "int", {"default", "base"});
  require_defined(value);
  const Value fallback = bound.value_or(0, Value(0));
  if (value.is_integral()) return Value(value.integer());
  std::optional<double> real;
  if (value.is_float()) {
    // int(inf) raises OverflowError, which only the second attempt catches.
    if (std::isinf(value.real())) raise("OverflowError: cannot convert float infinity to integer");
    real = value.real();
  }
  if (const Str* text = value.string()) {
    const Int base = bound.integer(1, 10);
    if (base < 0 || base == 1 || base > 36) return fallback;
    if (const auto parsed = parse_int(text->text, static_cast<int>(base))) return Value(*parsed);
    real = parse_float(text->text);
  }
  const auto integer = real ? truncated(*real) : std::nullopt;
  return integer ? Value(*integer) : fallback;
}

Value filter_float(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "float", {"default"});
  require_defined(value);
  if (value.is_number()) return Value(value.real());
  const auto parsed = value.is_string() ? parse_float(value.string()->text) : std::nullopt;
  return parsed ? Value(*parsed) : bound.value_or(0, Value(0.0));
}

// round(float, digits): to the nearest decimal, exactly, half to even.
Value round_float(double value, Int digits) {
  if (!std::isfinite(value) || digits > 323) return Value(value);
  if (digits < -308) return Value(std::copysign(0.0, value));
  if (digits >= 0) {
    return Value(std::strtod(format_float(value, 'f', static_cast<int>(digits)).c_str(), nullptr));
  }
  // As many significant digits as stay in front of the rounded ones.
  const std::string exponent = format_float(value, 'e', 17);
  const long magnitude = std::strtol(exponent.c_str() + exponent.find('e') + 1, nullptr, 10);
  const long kept = magnitude + static_cast<long>(digits);
  if (kept < -1) return Value(std::copysign(0.0, value));
  if (kept >= 0) {
    return Value(std::strtod(format_float(value, 'e', static_cast<int>(kept)).c_str(), nullptr));
  }
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  return Value(std::copysign(std::fabs(value) > unit / 2 ? unit : 0.0, value));
}

Value round_integer(Int value, Int digits) {
  if (digits >= 0) return Value(value);
  if (digits < -38) return Value(0);
  Int unit = 1;
  for (Int i = digits; i < 0; ++i) unit *= 10;
  const Int rest = ((value % unit) + unit) % unit;
  const Int floor = value - rest;
  const bool up = rest * 2 > unit || (rest * 2 == unit && (floor / unit) % 2 != 0);
  return Value(up ? floor + unit : floor);
}

Value filter_round(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "round", {"precision", "method"});
  const std::string method = bound.text(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") {
    raise("FilterArgumentError: method must be common, ceil or floor");
  }
  require_defined(value);
  if (!value.is_number()) raise("TypeError: type ", type_name(value), " doesn't define __round__");
  const Int digits = bound.integer(0, 0);
  if (method == "common") {
    return value.is_float() ? round_float(value.real(), digits)
                            : round_integer(value.integer(), digits);
  }
  const Value scale = power(Value(10), Value(digits));
  const Value scaled = arithmetic(Operator::kMul, value, scale);
  Value whole = scaled;
  if (scaled.is_float()) {
    const auto integer =
        truncated(method == "ceil" ? std::ceil(scaled.real()) : std::floor(scaled.real()));
    if (!integer) raise("ValueError: cannot convert float NaN or infinity to integer");
    whole = Value(*integer);
  }
  return arithmetic(Operator::kDiv, whole, scale);
}

Value filter_filesizeformat(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "filesizeformat", {"binary"});
  const bool binary = bound.truth(0, false);
  Arguments none;
  const Value number = filter_float(interpreter, value, none);
  if (value.is_string() && !parse_float(value.string()->text)) {
    raise("ValueError: could not convert string to float: ", repr(value));
  }
  if (!value.is_number() && !value.is_string()) {
    raise("TypeError: float() argument must be a string or a real number, not ", type_name(value));
  }
  const double bytes = number.real(), base = binary ? 1024 : 1000;
  if (bytes == 1) return Value::string("1 Byte");
  if (bytes < base) return Value::string(to_text(truncated(bytes).value_or(0)) + " Bytes");
  constexpr std::string_view kPrefixes = "KMGTPEZY";
  double unit = base;
  size_t i = 0;
  for (unit *= base; i + 1 < kPrefixes.size() && bytes >= unit; ++i) unit *= base;
  const char prefix = i == 0 && !binary ? 'k' : kPrefixes[i];
  return Value::string(format_float(base * bytes / unit, 'f', 1) + " " + prefix +
                       (binary ? "iB" : "B"));
}

constexpr Named<Filter> kFilters[] = {
    {"abs", filter_abs},
    {"filesizeformat", filter_filesizeformat},
    {"float", filter_float},
    {"int", filter_int},
    {"round", filter_round},
};

}  // namespace

const Filter* find_number_filter(const std::string& name) {
  for (const auto& filter : kFilters) {
    if (name == filter.name) return &filter.function;
  }
  return nullptr;
}

}  // namespace lowbit::jinja

// Python's operators on values.
#pragma once

#include <string_view>

#include "lowbit/jinja/value.h"

namespace lowbit::jinja {

enum class Operator { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
enum class Comparison { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

// Raise TypeError, ZeroDivisionError or UndefinedError as Python; refuse integers beyond 127 bits.
Value arithmetic(Operator op, const Value& a, const Value& b);
Value negate(const Value& value);
Value positive(const Value& value);
Value absolute(const Value& value);
Value power(const Value& base, const Value& exponent);

bool compare(Comparison op, const Value& a, const Value& b);
bool equal(const Value& a, const Value& b);
bool identical(const Value& a, const Value& b);         // Python's `is`
bool less(const Value& a, const Value& b);              // raises TypeError if not ordered
bool contains(const Value& container, const Value& x);  // x in container

size_t hash_value(const Value& value);  // raises TypeError if not hashable
size_t hash_text(std::string_view text);

Value concatenate(const Str& a, const Str& b);  // escapes what meets markup
Value repeat(const Value& sequence, Int count);

std::string escape_html(std::string_view text);

}  // namespace lowbit::jinja

// Python's str() and repr() of values, and numbers from text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lowbit/jinja/value.h"

namespace lowbit::jinja {

std::string to_text(Int value);
std::string to_text(double value);        // repr(float): the shortest text that reads back
std::string to_text(const Value& value);  // str(value), as {{ value }} prints it
std::string repr(const Value& value);
std::string repr(std::string_view text);  // a quoted str
std::string hexadecimal(uint64_t value, int digits);

// |value| in base 2..16, lower case.
std::string digits(Int value, unsigned base);

// int(text, base) and float(text); none where Python raises ValueError. Integers beyond 127 bits
// are refused.
std::optional<Int> parse_int(std::string_view text, int base);
std::optional<double> parse_float(std::string_view text);

}  // namespace lowbit::jinja

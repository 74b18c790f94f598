// Python's three ways to format: "%s" % x, format(x, spec), "{}".format(x).
#pragma once

#include <string>
#include <string_view>

#include "lowbit/jinja/value.h"

namespace lowbit::jinja {

// format % arguments, where a tuple holds several and a dict named ones.
Value format_percent(const Str& format, const Value& arguments);

// Python's format(value, spec): "[[fill]align][sign][z][#][0][width][,_][.precision][type]".
std::string format_value(const Value& value, std::string_view spec);

// str.format; fields may look into values as {0.name} and {name[key]}.
Value format_braces(const Str& format, const Values& positional,
                    const std::vector<std::pair<std::string, Value>>& named);

// Digits of a finite number as C's printf(%<type>) writes them: f, e, g.
std::string format_float(double value, char type, int precision, bool alternate = false);

}  // namespace lowbit::jinja

#include "lowbit/jinja/keys.h"

#include <algorithm>
#include <numeric>

#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/operators.h"
#include "lowbit/jinja/print.h"
#include "lowbit/jinja/text.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

KeyGetter::KeyGetter(const Value& attribute, bool ignore_case, Value fallback)
    : ignore_case_(ignore_case), fallback_(std::move(fallback)) {
  if (attribute.is_none()) return;
  if (!attribute.is_string()) {
    path_.push_back(attribute);
    return;
  }
  for (const std::string_view part : split(attribute.string()->text, ".", -1, false)) {
    const bool number =
        !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    path_.push_back(number ? Value(parse_int(part, 10).value_or(0))
                           : Value::string(std::string(part)));
  }
}

Value KeyGetter::operator()(const Value& item) const {
  Value value = item;
  for (const Value& part : path_) {
    value = get_item(value, part);
    if (value.is_undefined() && !fallback_.is_none()) value = fallback_;
  }
  if (!ignore_case_ || !value.is_string()) return value;
  return Value::string(unicode::lower(value.string()->text));
}

MultiKeyGetter::MultiKeyGetter(const Value& attribute, bool ignore_case) {
  if (!attribute.is_string()) {
    getters_.emplace_back(attribute, ignore_case);
    return;
  }
  for (const std::string_view path : split(attribute.string()->text, ",", -1, false)) {
    getters_.emplace_back(Value::string(std::string(path)), ignore_case);
  }
}

Value MultiKeyGetter::operator()(const Value& item) const {
  Values keys;
  for (const KeyGetter& getter : getters_) keys.push_back(getter(item));
  return Value::list(std::move(keys));
}

Values sorted_by(const Values& items, const Values& keys, bool reverse) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (reverse) std::reverse(order.begin(), order.end());
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    charge_elements(4);
    return less(keys[a], keys[b]);
  });
  if (reverse) std::reverse(order.begin(), order.end());
  Values sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  return sorted;
}

}  // namespace lowbit::jinja

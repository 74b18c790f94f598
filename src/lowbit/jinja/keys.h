// What filters sort, group and compare by.
#pragma once

#include <vector>

#include "lowbit/jinja/value.h"

namespace lowbit::jinja {

// jinja2's make_attrgetter: looks up a path such as "function.name" or "items.0" in items.
class KeyGetter {
 public:
  // attribute: none (the item itself), an int or a dotted path.
  explicit KeyGetter(const Value& attribute, bool ignore_case = false, Value fallback = Value());
  Value operator()(const Value& item) const;

 private:
  std::vector<Value> path_;
  bool ignore_case_;
  Value fallback_;  // for undefined parts, unless none
};

// make_multi_attrgetter: a list with a key for each path of "age,name".
class MultiKeyGetter {
 public:
  MultiKeyGetter(const Value& attribute, bool ignore_case);
  Value operator()(const Value& item) const;

 private:
  std::vector<KeyGetter> getters_;
};

// The items in the order of their keys, equal ones as they were (or all reversed, likewise).
Values sorted_by(const Values& items, const Values& keys, bool reverse);

}  // namespace lowbit::jinja

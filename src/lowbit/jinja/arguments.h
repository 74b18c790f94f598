// Arguments of calls, and how functions take them apart.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lowbit/jinja/value.h"

namespace lowbit::jinja {

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;
};

// The arguments of one call by parameter. Every reader raises TypeError for another type.
class Bound {
 public:
  // Raises TypeError for too many, too few (below `required`), repeated and unknown ones.
  Bound(Arguments& arguments, const char* function, std::initializer_list<const char*> parameters,
        size_t required = 0);

  bool has(size_t i) const { return values_[i].has_value(); }
  bool has_value(size_t i) const { return has(i) && !values_[i]->is_none(); }  // nor none
  const Value& operator[](size_t i) const { return *values_[i]; }
  Value value_or(size_t i, const Value& fallback) const { return has(i) ? *values_[i] : fallback; }
  Int integer(size_t i, Int fallback) const;
  bool truth(size_t i, bool fallback) const { return has(i) ? truthy(*values_[i]) : fallback; }
  const Str& string(size_t i) const;
  std::string text(size_t i, const char* fallback) const;  // must be a string

 private:
  [[noreturn]] void raise_type(size_t i, const char* expected) const;

  const char* function_;
  std::vector<std::optional<Value>> values_;
};

// An int argument as a size of text or a count: clamped to 0, refused beyond `limit`.
size_t bounded_size(Int value, size_t limit);

}  // namespace lowbit::jinja

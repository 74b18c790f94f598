#include "lowbit/jinja/arguments.h"

#include "lowbit/jinja/print.h"

namespace lowbit::jinja {

Bound::Bound(Arguments& arguments, const char* function,
             std::initializer_list<const char*> parameters, size_t required)
    : function_(function), values_(parameters.size()) {
  if (arguments.positional.size() > parameters.size()) {
    raise("TypeError: ", function, "() takes at most ", parameters.size(), " arguments (",
          arguments.positional.size(), " given)");
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    values_[i] = std::move(arguments.positional[i]);
  }
  for (auto& [name, value] : arguments.named) {
    size_t i = 0;
    while (i < parameters.size() && name != parameters.begin()[i]) ++i;
    if (i == parameters.size()) {
      raise("TypeError: ", function, "() got an unexpected keyword argument '", name, "'");
    }
    if (values_[i]) raise("TypeError: ", function, "() got multiple values for '", name, "'");
    values_[i] = std::move(value);
  }
  for (size_t i = 0; i < required; ++i) {
    if (!values_[i]) {
      raise("TypeError: ", function, "() misses its argument '", parameters.begin()[i], "'");
    }
  }
}

void Bound::raise_type(size_t i, const char* expected) const {
  require_defined(*values_[i]);
  raise("TypeError: argument ", i + 1, " of ", function_, "() must be ", expected, ", not ",
        type_name(*values_[i]));
}

Int Bound::integer(size_t i, Int fallback) const {
  if (!has(i)) return fallback;
  if (!values_[i]->is_integral()) raise_type(i, "int");
  return values_[i]->integer();
}

const Str& Bound::string(size_t i) const {
  if (!values_[i]->is_string()) raise_type(i, "str");
  return *values_[i]->string();
}

std::string Bound::text(size_t i, const char* fallback) const {
  return has(i) ? string(i).text : fallback;
}

size_t bounded_size(Int value, size_t limit) {
  if (value > static_cast<Int>(limit)) {
    refuse("a size of ", to_text(value), " where at most ", limit, " are possible");
  }
  return value < 0 ? 0 : static_cast<size_t>(value);
}

}  // namespace lowbit::jinja

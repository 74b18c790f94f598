// The methods of Python's dict, list, tuple, range, int and float that change nothing.
#include <cmath>

#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/operators.h"

namespace lowbit::jinja {

namespace {

Value dict_get(const Value& self, Arguments& arguments) {
  if (!arguments.named.empty()) raise("TypeError: dict.get() takes no keyword arguments");
  const Bound bound(arguments, "get", {"key", "default"}, 1);
  const Value* found = self.dict()->find(bound[0]);
  return found ? *found : bound.value_or(1, Value());
}

template <DictView::Part part>
Value dict_view(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "dict method", {});
  return Value(std::make_shared<DictView>(self.shared_dict(), part));
}

Value copy(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "copy", {});
  return self;  // nothing can change it
}

Value dict_fromkeys(const Value&, Arguments& arguments) {
  const Bound bound(arguments, "fromkeys", {"iterable", "value"}, 1);
  auto dict = std::make_shared<Dict>();
  Iteration keys(bound[0]);
  while (auto key = keys.next()) dict->set(std::move(*key), bound.value_or(1, Value()));
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

bool same(const Value& a, const Value& b) { return identical(a, b) || equal(a, b); }

Value count(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "count", {"value"}, 1);
  size_t found = 0;
  Iteration items(self);
  while (const auto item = items.next()) found += same(*item, bound[0]);
  return Value(found);
}

Value index(const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "index", {"value", "start", "stop"}, 1);
  const auto size = static_cast<Int>(*length(self));
  const auto clamp = [&](size_t i, Int fallback) {
    const Int value = bound.integer(i, fallback);
    return value < 0 ? value + size : value;
  };
  const Int start = clamp(1, 0), stop = clamp(2, size);
  Iteration items(self);
  for (Int i = 0; const auto item = items.next(); ++i) {
    if (i >= start && i < stop && same(*item, bound[0])) return Value(i);
  }
  raise("ValueError: the value is not in the ", type_name(self));
}

Value bit_length(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "bit_length", {});
  int bits = 0;
  for (Int rest = self.integer(); rest != 0; rest /= 2) ++bits;
  return Value(bits);
}

Value is_integer(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "is_integer", {});
  return Value(std::isfinite(self.real()) && self.real() == std::floor(self.real()));
}

Value conjugate(const Value& self, Arguments& arguments) {
  const Bound none(arguments, "conjugate", {});
  return positive(self);
}

constexpr Named<Method> kDict[] = {
    {"copy", copy},
    {"fromkeys", dict_fromkeys},
    {"get", dict_get},
    {"items", dict_view<DictView::Part::kItems>},
    {"keys", dict_view<DictView::Part::kKeys>},
    {"values", dict_view<DictView::Part::kValues>},
};
constexpr Named<Method> kSequence[] = {{"count", count}, {"index", index}};
constexpr Named<Method> kList[] = {{"copy", copy}};
constexpr Named<Method> kInt[] = {{"bit_length", bit_length}, {"conjugate", conjugate}};
constexpr Named<Method> kFloat[] = {{"is_integer", is_integer}, {"conjugate", conjugate}};

template <size_t N>
const Method* find_in(const Named<Method> (&methods)[N], const std::string& name) {
  for (const auto& method : methods) {
    if (name == method.name) return &method.function;
  }
  return nullptr;
}

}  // namespace

const Method* find_container_method(const Value& self, const std::string& name) {
  if (self.dict()) return find_in(kDict, name);
  if (self.is_integral()) return find_in(kInt, name);
  if (self.is_float()) return find_in(kFloat, name);
  if (self.object_as<Range>()) return find_in(kSequence, name);
  const Sequence* sequence = self.sequence();
  if (!sequence) return nullptr;
  const Method* method = find_in(kSequence, name);
  return method || sequence->type != Sequence::Type::kList ? method : find_in(kList, name);
}

}  // namespace lowbit::jinja

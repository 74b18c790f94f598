// jinja2's tests: value is name(arguments).
#include <algorithm>

#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/operators.h"
#include "lowbit/jinja/print.h"
#include "lowbit/jinja/text.h"

namespace lowbit::jinja {

namespace {

void no_arguments(Arguments& arguments) { const Bound none(arguments, "test", {}); }

template <bool (*holds)(const Value&)>
bool simple(Interpreter&, const Value& value, Arguments& arguments) {
  no_arguments(arguments);
  return holds(value);
}

template <Comparison op>
bool comparison(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "comparison", {"other"}, 1);
  return compare(op, value, bound[0]);
}

Value modulo(const Value& value, const Value& divisor) {
  return arithmetic(Operator::kMod, value, divisor);
}

bool is_odd(const Value& value) { return equal(modulo(value, Value(2)), Value(1)); }
bool is_even(const Value& value) { return equal(modulo(value, Value(2)), Value(0)); }
bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.is_bool(); }
bool is_true(const Value& value) { return value.is_bool() && value.boolean(); }
bool is_false(const Value& value) { return value.is_bool() && !value.boolean(); }
bool is_integer(const Value& value) { return value.is_int(); }
bool is_float(const Value& value) { return value.is_float(); }
bool is_number(const Value& value) { return value.is_number(); }
bool is_string(const Value& value) { return value.is_string(); }
bool is_mapping(const Value& value) { return value.dict() != nullptr; }
bool is_escaped(const Value& value) { return value.is_string() && value.string()->markup; }

bool is_callable(const Value& value) {
  return value.is_undefined() || (value.object() && value.object()->callable());
}

bool is_sequence(const Value& value) {
  if (value.string() || value.sequence() || value.dict() || value.is_undefined()) return true;
  return value.object() && value.object()->indexable();
}

bool is_lower(const Value& value) { return is_lower_text(to_text(value)); }
bool is_upper(const Value& value) { return is_upper_text(to_text(value)); }

bool test_divisible(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "divisibleby", {"num"}, 1);
  return equal(modulo(value, bound[0]), Value(0));
}

bool test_same(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "sameas", {"other"}, 1);
  return identical(value, bound[0]);
}

bool test_in(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "in", {"seq"}, 1);
  return contains(bound[0], value);
}

bool is_filter(const Value& value) { return value.is_string() && find_filter(value.string()->text); }
bool is_test(const Value& value) { return value.is_string() && find_test(value.string()->text); }

constexpr Named<Test> kTests[] = {
    {"!=", comparison<Comparison::kNe>},
    {"<", comparison<Comparison::kLt>},
    {"<=", comparison<Comparison::kLe>},
    {"==", comparison<Comparison::kEq>},
    {">", comparison<Comparison::kGt>},
    {">=", comparison<Comparison::kGe>},
    {"boolean", simple<is_boolean>},
    {"callable", simple<is_callable>},
    {"defined", simple<is_defined>},
    {"divisibleby", test_divisible},
    {"eq", comparison<Comparison::kEq>},
    {"equalto", comparison<Comparison::kEq>},
    {"escaped", simple<is_escaped>},
    {"even", simple<is_even>},
    {"false", simple<is_false>},
    {"filter", simple<is_filter>},
    {"float", simple<is_float>},
    {"ge", comparison<Comparison::kGe>},
    {"greaterthan", comparison<Comparison::kGt>},
    {"gt", comparison<Comparison::kGt>},
    {"in", test_in},
    {"integer", simple<is_integer>},
    {"iterable", simple<is_iterable>},
    {"le", comparison<Comparison::kLe>},
    {"lessthan", comparison<Comparison::kLt>},
    {"lower", simple<is_lower>},
    {"lt", comparison<Comparison::kLt>},
    {"mapping", simple<is_mapping>},
    {"ne", comparison<Comparison::kNe>},
    {"none", simple<is_none>},
    {"number", simple<is_number>},
    {"odd", simple<is_odd>},
    {"sameas", test_same},
    {"sequence", simple<is_sequence>},
    {"string", simple<is_string>},
    {"test", simple<is_test>},
    {"true", simple<is_true>},
    {"undefined", simple<is_undefined>},
    {"upper", simple<is_upper>},
};

}  // namespace

const Test* find_test(const std::string& name) {
  for (const auto& test : kTests) {
    if (name == test.name) return &test.function;
  }
  return nullptr;
}

}  // namespace lowbit::jinja

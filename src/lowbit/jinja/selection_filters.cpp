// jinja2's filters that apply others (map, select, ...) or choose (default, attr), and the table.
#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/interpreter.h"
#include "lowbit/jinja/keys.h"
#include "lowbit/jinja/print.h"

namespace lowbit::jinja {

namespace {

Value filter_default(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "default", {"default_value", "boolean"});
  if (value.is_undefined() || (bound.truth(1, false) && !truthy(value))) {
    return bound.has(0) ? bound[0] : Value::string("");
  }
  return value;
}

Value filter_attr(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "attr", {"name"}, 1);
  const std::string& name = bound.string(0).text;
  require_defined(value);
  if (auto attribute = python_attribute(value, name)) return *attribute;
  return Value::undefined(repr(type_name(value) + " object") + " has no attribute " + repr(name));
}

// The first positional argument, which is taken away.
Value take_first(Arguments& arguments) {
  Value first = std::move(arguments.positional.front());
  arguments.positional.erase(arguments.positional.begin());
  return first;
}

const std::string& name_of(const Value& value, const char* kind) {
  if (!value.is_string()) raise("TemplateRuntimeError: No ", kind, " named ", repr(value), ".");
  return value.string()->text;
}

std::optional<Value> take_named(Arguments& arguments, const char* name) {
  for (auto it = arguments.named.begin(); it != arguments.named.end(); ++it) {
    if (it->first != name) continue;
    Value value = std::move(it->second);
    arguments.named.erase(it);
    return value;
  }
  return std::nullopt;
}

Values map_attribute(const Value& value, const Value& attribute, Arguments& arguments) {
  const Value fallback = take_named(arguments, "default").value_or(Value());
  if (!arguments.named.empty()) {
    raise("FilterArgumentError: Unexpected keyword argument ", repr(arguments.named[0].first));
  }
  const KeyGetter getter(attribute, false, fallback);
  Values items;
  Iteration iteration(value);
  while (const auto item = iteration.next()) items.push_back(getter(*item));
  return items;
}

Value filter_map(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  Values items;
  if (truthy(value)) {
    const auto attribute =
        arguments.positional.empty() ? take_named(arguments, "attribute") : std::nullopt;
    if (attribute) {
      items = map_attribute(value, *attribute, arguments);
    } else {
      if (arguments.positional.empty()) {
        raise("FilterArgumentError: map requires a filter argument");
      }
      const Value name = take_first(arguments);
      Iteration iteration(value);
      while (const auto item = iteration.next()) {
        items.push_back(interpreter.apply_filter(name_of(name, "filter"), *item, arguments));
      }
    }
  }
  return Iterator::make("generator", std::move(items));
}

template <bool keep, bool by_attribute>
Value filter_select(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  Values items;
  if (truthy(value)) {
    if (by_attribute && arguments.positional.empty()) {
      raise("FilterArgumentError: Missing parameter for attribute name");
    }
    const KeyGetter getter(by_attribute ? take_first(arguments) : Value());
    const bool tested = !arguments.positional.empty();
    const Value test = tested ? take_first(arguments) : Value();
    Iteration iteration(value);
    while (auto item = iteration.next()) {
      const Value key = getter(*item);
      const bool holds =
          tested ? interpreter.apply_test(name_of(test, "test"), key, arguments) : truthy(key);
      if (holds == keep) items.push_back(std::move(*item));
    }
  }
  return Iterator::make("generator", std::move(items));
}

template <const char* name>
Value filter_unsupported(Interpreter&, const Value&, Arguments&) {
  refuse("the filter '", name, "' is not supported");
}

constexpr char kPprint[] = "pprint", kRandom[] = "random", kUrlize[] = "urlize",
               kXmlattr[] = "xmlattr", kWordwrap[] = "wordwrap", kStriptags[] = "striptags";

constexpr Named<Filter> kFilters[] = {
    {"attr", filter_attr},
    {"d", filter_default},
    {"default", filter_default},
    {"map", filter_map},
    {"pprint", filter_unsupported<kPprint>},
    {"random", filter_unsupported<kRandom>},
    {"reject", filter_select<false, false>},
    {"rejectattr", filter_select<false, true>},
    {"select", filter_select<true, false>},
    {"selectattr", filter_select<true, true>},
    {"striptags", filter_unsupported<kStriptags>},
    {"urlize", filter_unsupported<kUrlize>},
    {"wordwrap", filter_unsupported<kWordwrap>},
    {"xmlattr", filter_unsupported<kXmlattr>},
};

}  // namespace

const Filter* find_selection_filter(const std::string& name) {
  for (const auto& filter : kFilters) {
    if (name == filter.name) return &filter.function;
  }
  return nullptr;
}

const Filter* find_filter(const std::string& name) {
  for (const auto find : {find_text_filter, find_sequence_filter, find_selection_filter,
                          find_number_filter}) {
    if (const Filter* filter = find(name)) return filter;
  }
  return nullptr;
}

}  // namespace lowbit::jinja

// jinja2's filters and tests, Hugging Face's globals, and the methods of Python's types.
#pragma once

#include <ctime>
#include <optional>
#include <string>

#include "lowbit/jinja/arguments.h"
#include "lowbit/jinja/value.h"

namespace lowbit::jinja {

using Filter = Value (*)(Interpreter&, const Value& value, Arguments& arguments);
using Test = bool (*)(Interpreter&, const Value& value, Arguments& arguments);
using Method = Value (*)(const Value& self, Arguments& arguments);
template <typename Function>
struct Named {
  const char* name;
  Function function;
};

// Null if there is none of that name.
const Filter* find_filter(const std::string& name);
const Test* find_test(const std::string& name);

// The parts of find_filter's table; null if the name is not among them.
const Filter* find_text_filter(const std::string& name);
const Filter* find_sequence_filter(const std::string& name);
const Filter* find_selection_filter(const std::string& name);
const Filter* find_number_filter(const std::string& name);

const Method* find_string_method(const std::string& name);
const Method* find_container_method(const Value& self, const std::string& name);

// A Python attribute of the value, mostly a method; none if its type has none of that name. What
// the sandbox forbids is an Undefined that says so.
std::optional<Value> python_attribute(const Value& self, const std::string& name);

// value.name and value[key], each falling back to the other as jinja2 does; Undefined if neither.
Value get_attribute(const Value& value, const std::string& name);
Value get_item(const Value& value, const Value& key);
// value[start:stop:step]; none stands for an absent bound.
Value get_slice(const Value& value, const Value& start, const Value& stop, const Value& step);

// A global function by name (range, namespace, raise_exception, ...); none if there is none.
std::optional<Value> find_global(Interpreter& interpreter, const std::string& name);

// json.dumps(value, ensure_ascii, indent, separators, sort_keys)
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // one level's; none: all in one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
std::string to_json(const Value& value, const JsonStyle& style);

// strftime of a local time as Python's naive datetime prints it.
std::string format_time(const std::string& format, std::time_t time);

}  // namespace lowbit::jinja

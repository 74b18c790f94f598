#include "lowbit/jinja/template.h"

#include "lowbit/base/limits.h"
#include "lowbit/jinja/interpreter.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

[[noreturn]] void fail_at(const TemplateError& error, Position position) {
  const Position at = error.position().line > 0 ? error.position() : position;
  fail(error.kind(), "chat template, line ", at.line, ", column ", at.column, ": ", error.what());
}

Program parse_source(const std::string& source) {
  LOWBIT_CHECK_KIND(source.size() <= limits::kTemplateBytes, ErrorKind::kUnsupported,
                    "chat template of ", source.size(), " bytes; at most ",
                    limits::kTemplateBytes, " are possible");
  LOWBIT_CHECK_KIND(unicode::valid(source), ErrorKind::kCorruptFile,
                    "chat template is not valid UTF-8");
  try {
    return parse(source);
  } catch (const TemplateError& error) {
    fail_at(error, {1, 1});
  }
}

Value from_json(const OrderedJson& json) {
  const Recursion recursion;
  switch (json.type()) {
    case OrderedJson::value_t::boolean: return Value(json.get<bool>());
    case OrderedJson::value_t::number_integer: return Value(Int{json.get<int64_t>()});
    case OrderedJson::value_t::number_unsigned: return Value(Int{json.get<uint64_t>()});
    case OrderedJson::value_t::number_float: return Value(json.get<double>());
    case OrderedJson::value_t::string:
      return Value::string(unicode::sanitized(json.get_ref<const std::string&>()));
    case OrderedJson::value_t::array: {
      Values items;
      for (const OrderedJson& item : json) items.push_back(from_json(item));
      return Value::list(std::move(items));
    }
    case OrderedJson::value_t::object: {
      auto dict = std::make_shared<Dict>();
      for (const auto& [key, item] : json.items()) {
        dict->set(Value::string(unicode::sanitized(key)), from_json(item));
      }
      return Value(std::shared_ptr<const Dict>(std::move(dict)));
    }
    case OrderedJson::value_t::null:
    case OrderedJson::value_t::binary:
    case OrderedJson::value_t::discarded: break;
  }
  return Value();
}

}  // namespace

Template::Template(const std::string& source) : program_(parse_source(source)) {}

std::string Template::render(const std::vector<std::pair<std::string, OrderedJson>>& variables,
                             std::optional<std::time_t> now) const {
  const Meter meter;
  Position position{1, 1};
  try {
    Variables values;
    for (const auto& [name, json] : variables) values.emplace_back(name, from_json(json));
    Interpreter interpreter(program_, std::move(values), now);
    try {
      return interpreter.run();
    } catch (const TemplateError&) {
      position = interpreter.position();
      throw;
    }
  } catch (const TemplateError& error) {
    fail_at(error, position);
  }
}

}  // namespace lowbit::jinja

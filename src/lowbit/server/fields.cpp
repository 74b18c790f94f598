#include "lowbit/server/fields.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/server/api_error.h"

namespace lowbit::server {

namespace {

const char* kind_name(FieldKind kind) {
  switch (kind) {
    case FieldKind::kBoolean:
      return "a boolean";
    case FieldKind::kInteger:
      return "an integer";
    case FieldKind::kNumber:
      return "a number";
    case FieldKind::kString:
      return "a string";
    case FieldKind::kStrings:
      return "a string or an array of strings";
    case FieldKind::kArray:
      return "an array";
    case FieldKind::kObject:
      return "an object";
    case FieldKind::kAny:
      break;
  }
  return "anything";
}

bool fits(const OrderedJson& value, FieldKind kind) {
  switch (kind) {
    case FieldKind::kBoolean:
      return value.is_boolean();
    case FieldKind::kInteger:
      return value.is_number_integer() ||
             (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>());
    case FieldKind::kNumber:
      return value.is_number();
    case FieldKind::kString:
      return value.is_string();
    case FieldKind::kStrings:
      return value.is_string() ||
             (value.is_array() && std::all_of(value.begin(), value.end(),
                                              [](const auto& v) { return v.is_string(); }));
    case FieldKind::kArray:
      return value.is_array();
    case FieldKind::kObject:
      return value.is_object();
    case FieldKind::kAny:
      break;
  }
  return true;
}

// A bound as people write it: 2, not 2.000000.
std::string plain(double value) {
  return std::trunc(value) == value ? std::to_string(static_cast<int64_t>(value)) : concat(value);
}

constexpr double kLargestInteger = 9223372036854774784.0;  // the largest double below 2^63

void check_range(const OrderedJson& value, Field field) {
  const double number = value.get<double>();
  if (field.kind == FieldKind::kInteger) {
    field.minimum = std::max(field.minimum, -kLargestInteger);
    field.maximum = std::min(field.maximum, kLargestInteger);
  }
  const std::string kind = field.kind == FieldKind::kInteger ? "integer" : "decimal";
  if (!(number >= field.minimum)) {
    throw ApiError(400,
                   concat("Invalid '", field.name, "': ", dump_json(value),
                          " is below the minimum of ", plain(field.minimum), "."),
                   field.name, kind + "_below_min_value");
  }
  if (!(number <= field.maximum)) {
    throw ApiError(400,
                   concat("Invalid '", field.name, "': ", dump_json(value),
                          " is above the maximum of ", plain(field.maximum), "."),
                   field.name, kind + "_above_max_value");
  }
}

OrderedJson field_schema(const Field& field) {
  static const char* const kTypes[] = {"boolean", "integer", "number", "string",
                                       "",        "array",   "object", ""};
  OrderedJson schema = OrderedJson::object();
  if (field.kind == FieldKind::kStrings) {
    schema["anyOf"] = {{{"type", "string"}},
                       {{"type", "array"}, {"items", {{"type", "string"}}}},
                       {{"type", "null"}}};
  } else if (field.kind != FieldKind::kAny) {
    schema["type"] = {kTypes[static_cast<size_t>(field.kind)], "null"};
  }
  if (field.kind == FieldKind::kArray) schema["items"] = OrderedJson::object();
  const auto bound = [&](double value) {
    return field.kind == FieldKind::kInteger ? OrderedJson(static_cast<int64_t>(value))
                                             : OrderedJson(value);
  };
  if (std::isfinite(field.minimum)) schema["minimum"] = bound(field.minimum);
  if (std::isfinite(field.maximum)) schema["maximum"] = bound(field.maximum);
  if (*field.about != '\0') schema["description"] = field.about;
  return schema;
}

}  // namespace

const char* type_name(const OrderedJson& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "a boolean";
  if (value.is_number_integer()) return "an integer";
  if (value.is_number()) return "a number";
  if (value.is_string()) return "a string";
  return value.is_array() ? "an array" : "an object";
}

void check_fields(const OrderedJson& body, std::span<const Field> fields) {
  for (const Field& field : fields) {
    const OrderedJson* value = member(body, field.name);
    if (value == nullptr) continue;
    if (!fits(*value, field.kind)) {
      throw ApiError(400,
                     concat("Invalid type for '", field.name, "': expected ",
                            kind_name(field.kind), ", but got ", type_name(*value), " instead."),
                     field.name, "invalid_type");
    }
    if (field.kind == FieldKind::kInteger || field.kind == FieldKind::kNumber) {
      check_range(*value, field);
    }
  }
}

OrderedJson schema_of(std::span<const Field> fields, const std::vector<std::string>& required) {
  OrderedJson properties = OrderedJson::object();
  for (const Field& field : fields) properties[field.name] = field_schema(field);
  OrderedJson schema = {{"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = required;
  return schema;
}

OrderedJson parse_body(const std::string& body) {
  OrderedJson document;
  try {
    document = parse_ordered_json(body, "the request body");
  } catch (const Error& error) {
    throw ApiError(400, error.what(), "", "invalid_json");
  }
  if (!document.is_object()) {
    throw ApiError(400, concat("The request body must be a JSON object, not ",
                               type_name(document), "."));
  }
  return document;
}

const OrderedJson* member(const OrderedJson& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::optional<double> number(const OrderedJson& object, const char* name) {
  const OrderedJson* value = member(object, name);
  return value == nullptr ? std::nullopt : std::optional(value->get<double>());
}

std::optional<int64_t> integer(const OrderedJson& object, const char* name) {
  const OrderedJson* value = member(object, name);
  return value == nullptr ? std::nullopt : std::optional(value->get<int64_t>());
}

bool boolean(const OrderedJson& object, const char* name, bool fallback) {
  const OrderedJson* value = member(object, name);
  return value == nullptr ? fallback : value->get<bool>();
}

std::string text(const OrderedJson& object, const char* name, const std::string& fallback) {
  const OrderedJson* value = member(object, name);
  return value == nullptr ? fallback : value->get<std::string>();
}

std::vector<std::string> strings(const OrderedJson& object, const char* name) {
  const OrderedJson* value = member(object, name);
  if (value == nullptr) return {};
  if (value->is_string()) return {value->get<std::string>()};
  return value->get<std::vector<std::string>>();
}

}  // namespace lowbit::server

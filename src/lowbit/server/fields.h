// Members of request bodies as tables: what they may be is said once, for the check of a request
// and for /openapi.json.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lowbit/base/json.h"

namespace lowbit::server {

enum class FieldKind {
  kBoolean,
  kInteger,
  kNumber,
  kString,
  kStrings,  // one or an array of them
  kArray,
  kObject,
  kAny,  // checked where it is read
};

struct Field {
  const char* name;
  FieldKind kind;
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  const char* about = "";
};

// Throws ApiError (400, param) for the first member whose type or range is not its field's. Null
// counts as absent; members without a field are ignored.
void check_fields(const OrderedJson& body, std::span<const Field> fields);

// The JSON schema of an object with these members.
OrderedJson schema_of(std::span<const Field> fields, const std::vector<std::string>& required);

// The body of a request as an object. Throws ApiError (400) on anything else, on members that
// appear twice, and on objects too large or too deep.
OrderedJson parse_body(const std::string& body);

// A member that is there and not null; null pointer else.
const OrderedJson* member(const OrderedJson& object, const char* name);
// Members that check_fields() has checked.
std::optional<double> number(const OrderedJson& object, const char* name);
std::optional<int64_t> integer(const OrderedJson& object, const char* name);
bool boolean(const OrderedJson& object, const char* name, bool fallback);
std::string text(const OrderedJson& object, const char* name, const std::string& fallback = "");
std::vector<std::string> strings(const OrderedJson& object, const char* name);

// "a string", "an array", ... for messages.
const char* type_name(const OrderedJson& value);

}  // namespace lowbit::server

// JSON from outside: nlohmann behind caps on depth, size, duplicate keys and encoding.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "lowbit/base/limits.h"

namespace lowbit {

using Json = nlohmann::json;                 // sorted members
using OrderedJson = nlohmann::ordered_json;  // members in the order of the text

// Parses one JSON document. `origin` names it in errors (a path). Throws kCorruptFile with byte
// position on bad syntax, bad UTF-8, duplicate members or nesting over limits::kJsonDepth.
Json parse_json(std::string_view text, const std::string& origin);
OrderedJson parse_ordered_json(std::string_view text, const std::string& origin);

// Reads and parses a file of at most max_bytes.
Json read_json(const std::string& path, size_t max_bytes = limits::kConfigBytes);

// Member `key` of an object as T, or `fallback` if absent or null. Throws kCorruptFile naming
// origin, key and found type if it has another type or range.
int64_t json_int(const Json& object, const char* key, int64_t fallback, const std::string& origin);
double json_double(const Json& object, const char* key, double fallback, const std::string& origin);
bool json_bool(const Json& object, const char* key, bool fallback, const std::string& origin);
std::string json_string(const Json& object, const char* key, const std::string& fallback,
                        const std::string& origin);

// Serializes; invalid UTF-8 in strings becomes U+FFFD instead of an exception.
std::string dump_json(const Json& value, int indent = -1);
std::string dump_json(const OrderedJson& value, int indent = -1);

}  // namespace lowbit

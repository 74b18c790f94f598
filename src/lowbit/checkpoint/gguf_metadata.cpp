// The typed getters of GgufMetadata.
#include "lowbit/base/check.h"
#include "lowbit/checkpoint/gguf.h"

namespace lowbit {

namespace {

const GgufValue* find(const GgufMetadata& metadata, const std::string& key) {
  const auto it = metadata.values.find(key);
  return it == metadata.values.end() ? nullptr : &it->second;
}

[[noreturn]] void fail_missing(const GgufMetadata& metadata, const std::string& key) {
  fail(ErrorKind::kCorruptFile, metadata.origin, ": metadata \"", key,
       "\" is missing; convert the model again with a current converter");
}

[[noreturn]] void fail_type(const GgufMetadata& metadata, const std::string& key,
                            const char* expected) {
  fail(ErrorKind::kCorruptFile, metadata.origin, ": metadata \"", key, "\" must be ", expected);
}

// The scalar of `key` as T, or the fallback if the key is absent.
template <typename T>
T scalar(const GgufMetadata& metadata, const std::string& key, const std::optional<T>& fallback,
         const char* expected) {
  const GgufValue* value = find(metadata, key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr) fail_missing(metadata, key);
  const auto* held = std::get_if<T>(&value->scalar);
  if (value->type == gguf_type::kArray || held == nullptr) fail_type(metadata, key, expected);
  return *held;
}

}  // namespace

int64_t GgufMetadata::get_int(const std::string& key, std::optional<int64_t> fallback) const {
  const GgufValue* value = find(*this, key);
  if (value == nullptr || !std::holds_alternative<uint64_t>(value->scalar)) {
    return scalar<int64_t>(*this, key, fallback, "an integer");
  }
  const uint64_t held = std::get<uint64_t>(value->scalar);
  if (held > INT64_MAX) fail_type(*this, key, "below 2^63");
  return static_cast<int64_t>(held);
}

double GgufMetadata::get_double(const std::string& key, std::optional<double> fallback) const {
  return scalar<double>(*this, key, fallback, "a floating-point number");
}

bool GgufMetadata::get_bool(const std::string& key, std::optional<bool> fallback) const {
  return scalar<bool>(*this, key, fallback, "a bool");
}

std::string GgufMetadata::get_string(const std::string& key,
                                     const std::optional<std::string>& fallback) const {
  return scalar<std::string>(*this, key, fallback, "a string");
}

const std::vector<std::string>& GgufMetadata::get_strings(const std::string& key) const {
  static const std::vector<std::string> empty;
  const GgufValue* value = find(*this, key);
  if (value == nullptr) return empty;
  if (value->type != gguf_type::kArray || value->element_type != gguf_type::kString) {
    fail_type(*this, key, "an array of strings");
  }
  return value->strings;
}

const std::vector<double>& GgufMetadata::get_numbers(const std::string& key) const {
  static const std::vector<double> empty;
  const GgufValue* value = find(*this, key);
  if (value == nullptr) return empty;
  if (value->type != gguf_type::kArray || value->element_type == gguf_type::kString) {
    fail_type(*this, key, "an array of numbers");
  }
  return value->numbers;
}

}  // namespace lowbit

// ConfigReader: members of a config object with their ranges. Every getter throws kCorruptFile
// naming file, key and value.
#pragma once

#include <cstdint>
#include <string>

#include "lowbit/base/json.h"

namespace lowbit {

class ConfigReader {
 public:
  // object must outlive the reader; origin names it in errors. Throws kCorruptFile if it is not an
  // object.
  ConfigReader(const Json& object, std::string origin);

  const Json& object() const { return object_; }
  const std::string& origin() const { return origin_; }
  bool contains(const char* key) const { return object_.contains(key); }
  bool has_value(const char* key) const { return contains(key) && !object_[key].is_null(); }

  // Members within [low, high]; absent or null is an error, or the fallback.
  int64_t integer(const char* key, int64_t low, int64_t high) const;
  int64_t integer(const char* key, int64_t low, int64_t high, int64_t fallback) const;
  double number(const char* key, double low, double high) const;
  double number(const char* key, double low, double high, double fallback) const;
  bool boolean(const char* key, bool fallback) const;
  std::string string(const char* key, const std::string& fallback) const;

 private:
  void require(const char* key) const;

  const Json& object_;
  std::string origin_;
};

}  // namespace lowbit

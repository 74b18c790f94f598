#include "lowbit/model/config_reader.h"

#include "lowbit/base/check.h"

namespace lowbit {

ConfigReader::ConfigReader(const Json& object, std::string origin)
    : object_(object), origin_(std::move(origin)) {
  LOWBIT_CHECK_KIND(object_.is_object(), ErrorKind::kCorruptFile, origin_,
                    ": expected a JSON object, found ", object_.type_name());
}

void ConfigReader::require(const char* key) const {
  LOWBIT_CHECK_KIND(has_value(key), ErrorKind::kCorruptFile, origin_, ": \"", key, "\" is missing");
}

int64_t ConfigReader::integer(const char* key, int64_t low, int64_t high) const {
  require(key);
  return integer(key, low, high, low);
}

int64_t ConfigReader::integer(const char* key, int64_t low, int64_t high, int64_t fallback) const {
  if (!has_value(key)) return fallback;
  const int64_t value = json_int(object_, key, fallback, origin_);
  LOWBIT_CHECK_KIND(value >= low && value <= high, ErrorKind::kCorruptFile, origin_, ": \"", key,
                    "\" is ", value, ", expected ", low, " to ", high);
  return value;
}

double ConfigReader::number(const char* key, double low, double high) const {
  require(key);
  return number(key, low, high, low);
}

double ConfigReader::number(const char* key, double low, double high, double fallback) const {
  if (!has_value(key)) return fallback;
  const double value = json_double(object_, key, fallback, origin_);
  LOWBIT_CHECK_KIND(value >= low && value <= high, ErrorKind::kCorruptFile, origin_, ": \"", key,
                    "\" is ", value, ", expected ", low, " to ", high);
  return value;
}

bool ConfigReader::boolean(const char* key, bool fallback) const {
  return json_bool(object_, key, fallback, origin_);
}

std::string ConfigReader::string(const char* key, const std::string& fallback) const {
  return json_string(object_, key, fallback, origin_);
}

}  // namespace lowbit

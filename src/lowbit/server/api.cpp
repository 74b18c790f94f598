#include "lowbit/server/api.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <random>

#include "lowbit/server/api_error.h"
#include "lowbit/server/fields.h"

namespace lowbit::server {

void check_model(const Api& api, const OrderedJson& body) {
  const std::string name = text(body, "model", api.name());
  if (std::find(api.names.begin(), api.names.end(), name) != api.names.end()) return;
  throw ApiError(404, "The model `" + name.substr(0, 200) + "` does not exist.", "model",
                 "model_not_found");
}

SamplingParams default_sampling(const Json& generation_config, int64_t vocab_size) {
  const std::string origin = "generation_config.json";
  const auto value = [&](const char* key, double fallback) {
    return static_cast<float>(json_double(generation_config, key, fallback, origin));
  };
  SamplingParams params;
  params.temperature = value("temperature", 1);
  params.top_k = static_cast<int>(json_int(generation_config, "top_k", 0, origin));
  params.top_p = value("top_p", 1);
  params.min_p = value("min_p", 0);
  params.repeat_penalty = value("repetition_penalty", 1);
  params.repeat_last_n = -1;
  validate(params, vocab_size);
  return params;
}

int64_t unix_seconds() { return static_cast<int64_t>(std::time(nullptr)); }

std::string new_id(const char* prefix) {
  thread_local std::mt19937_64 random = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  std::array<char, 33> digits;
  std::snprintf(digits.data(), digits.size(), "%016llx%016llx",
                static_cast<unsigned long long>(random()),
                static_cast<unsigned long long>(random()));
  return prefix + std::string(digits.data());
}

}  // namespace lowbit::server

#include "lowbit/hub/settings.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/base/environment.h"
#include "lowbit/base/file.h"
#include "lowbit/checkpoint/hub_cache.h"
#include "lowbit/checkpoint/paths.h"

namespace lowbit::hub {

namespace {

constexpr size_t kTokenBytes = 4'096;

bool is_set(const char* name) {
  std::string value = environment_variable(name);
  for (char& c : value) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

std::string trimmed(const std::string& text) {
  const char* blanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

fs::path token_file() {
  if (const std::string path = environment_variable("HF_TOKEN_PATH"); !path.empty()) return path;
  if (const std::string home = environment_variable("HF_HOME"); !home.empty())
    return fs::path(home) / "token";
  const std::string cache = environment_variable("XDG_CACHE_HOME");
  const fs::path base =
      cache.empty() ? fs::path(environment_variable("HOME")) / ".cache" : fs::path(cache);
  return base / "huggingface" / "token";
}

std::string find_token() {
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    if (std::string token = trimmed(environment_variable(name)); !token.empty()) return token;
  }
  const fs::path file = token_file();
  return path_exists(file) ? trimmed(read_file(file, kTokenBytes)) : "";
}

}  // namespace

void check_token(const std::string& token) {
  const bool printable =
      std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 0x7f; });
  LOWBIT_CHECK(printable && token.size() <= kTokenBytes,
               "the Hugging Face token (HF_TOKEN, or the file ", token_file().string(),
               ") is not a single word of printable ASCII");
}

HubSettings settings_from_environment() {
  HubSettings settings;
  if (std::string endpoint = environment_variable("HF_ENDPOINT"); !endpoint.empty()) {
    while (endpoint.ends_with('/')) endpoint.pop_back();
    LOWBIT_CHECK(endpoint.starts_with("http://") || endpoint.starts_with("https://"),
                 "HF_ENDPOINT is \"", endpoint, "\", not an address that begins with https://");
    settings.endpoint = endpoint;
  }
  settings.token = find_token();
  check_token(settings.token);
  const std::vector<std::string> folders = hub_cache_folders();
  LOWBIT_CHECK(!folders.empty(), "no folder for models: set HF_HOME, HF_HUB_CACHE or HOME");
  settings.cache = folders.front();
  settings.offline = is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE");
  return settings;
}

}  // namespace lowbit::hub

// Where tests find data: golden files in the repository, and optional files outside it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace lowbit::test {

inline std::string golden(const std::string& name) {
  return std::string(LOWBIT_GOLDEN_DIR) + "/" + name;
}

// A file of the shared folder beside the checkout ($LOWBIT_SHARED overrides); empty if absent.
inline std::string shared(const std::string& name) {
  const char* folder = std::getenv("LOWBIT_SHARED");
  const std::string path = std::string(folder ? folder : LOWBIT_SHARED_DIR) + "/" + name;
  return std::filesystem::exists(path) ? path : "";
}

// The real model that scripts/demo fetches; empty if absent.
inline std::string smollm2() {
  const char* cache = std::getenv("LOWBIT_CACHE");
  const char* home = std::getenv("HOME");
  const std::string folder =
      cache ? std::string(cache) : std::string(home ? home : "") + "/.cache/lowbit";
  const std::string path = folder + "/SmolLM2-135M-Instruct.Q4_1.gguf";
  return std::filesystem::exists(path) ? path : "";
}

}  // namespace lowbit::test

// Skips the running test, saying which file it would need.
#define LOWBIT_SKIP_WITHOUT(path, what) \
  if ((path).empty()) GTEST_SKIP() << "needs " << (what)

// Temporary folders and parsing of bytes in memory.
#pragma once

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "lowbit/base/file.h"

namespace lowbit::test {

// A new empty folder, removed with all it holds at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> count = 0;
    path_ = fs::temp_directory_path() /
            ("lowbit-test-" + std::to_string(getpid()) + "-" + std::to_string(count++));
    fs::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string path() const { return path_.string(); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

inline void write_text(const std::string& path, std::string_view text) {
  fs::create_directories(fs::path(path).parent_path());
  FileWriter writer(path);
  writer.write(text);
}

// Runs a parser of bytes on a string.
template <typename Parser>
auto parse(Parser parser, std::string_view bytes) {
  return parser({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "test");
}

}  // namespace lowbit::test

#include "lowbit/base/text_file.h"

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/base/utf8.h"

namespace lowbit {

void check_utf8(const std::string& text, const std::string& what) {
  const size_t at = find_invalid_utf8(text);
  LOWBIT_CHECK(at == std::string::npos, what, " is not valid UTF-8 (byte ", at,
               "); convert it, for example with iconv");
}

std::string read_text_file(const fs::path& path) {
  std::string text = read_file(path, limits::kPromptBytes);
  check_utf8(text, path.string());
  return text;
}

}  // namespace lowbit

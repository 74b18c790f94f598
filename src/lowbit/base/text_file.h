// Text from outside: whole files that must be UTF-8.
#pragma once

#include <string>

#include "lowbit/base/file.h"

namespace lowbit {

// Throws kInvalidArgument naming `what` and the byte if the text is not UTF-8.
void check_utf8(const std::string& text, const std::string& what);

// Throws kIo if the file cannot be read, kCorruptFile if it is over limits::kPromptBytes, and as
// check_utf8().
std::string read_text_file(const fs::path& path);

}  // namespace lowbit

// SHA256SUMS: "<64 digits>  <file>" for every file of a folder, as sha256sum writes and checks it.
#pragma once

#include <string>
#include <vector>

#include "lowbit/base/file.h"

namespace lowbit {

constexpr const char* kChecksumFile = "SHA256SUMS";

// Of all files in the folder, sorted by name.
void write_checksums(const fs::path& folder);

// False if the folder has no checksums. Files that are missing or changed, and lines that are no
// checksums, are added to `problems`.
bool check_checksums(const fs::path& folder, std::vector<std::string>& problems);

}  // namespace lowbit

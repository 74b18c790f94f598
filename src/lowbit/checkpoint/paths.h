// Folders and names from outside, looked at without exceptions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lowbit/base/file.h"

namespace lowbit {

// False also where the system will not say.
bool path_exists(const fs::path& path);
bool is_folder(const fs::path& path);

// What the folder holds, sorted; empty if it cannot be read.
std::vector<fs::path> folder_entries(const fs::path& folder);

// A name of letters, digits, '.', '_' and '-' that begins with none of ".": whatever the file
// system, it stays in its folder.
bool is_plain_name(std::string_view name);

bool ends_with(std::string_view text, std::string_view ending);

}  // namespace lowbit

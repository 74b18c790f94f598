#include "lowbit/checkpoint/checksums.h"

#include <algorithm>
#include <sstream>

#include "lowbit/base/check.h"
#include "lowbit/base/checksum.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/paths.h"

namespace lowbit {

namespace {

constexpr size_t kDigits = 64;

std::string checksum_of(const fs::path& path) {
  const MappedFile file(path);
  constexpr uint64_t kPiece = 64 * limits::kMiB;
  Sha256 hash;
  for (uint64_t begin = 0; begin < file.size(); begin += kPiece) {
    const uint64_t length = std::min(kPiece, file.size() - begin);
    hash.update(file.bytes().subspan(begin, length));
    file.release(begin, length);
  }
  file.check();
  return hash.hex();
}

}  // namespace

void write_checksums(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && name != kChecksumFile) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  std::string lines;
  for (const std::string& name : names) {
    lines += concat(checksum_of(folder / name), "  ", name, "\n");
  }
  write_file_atomic(folder / kChecksumFile, lines);
}

bool check_checksums(const fs::path& folder, std::vector<std::string>& problems) {
  const fs::path path = folder / kChecksumFile;
  if (!path_exists(path)) return false;
  std::istringstream lines(read_file(path, limits::kConfigBytes));
  for (std::string line; std::getline(lines, line);) {
    // "<digits>  name" of text mode, "<digits> *name" of binary mode.
    const std::string name = line.size() > kDigits + 2 ? line.substr(kDigits + 2) : "";
    if (name.empty() || name.find('/') != std::string::npos) {
      problems.push_back(concat(path.string(), ": not a checksum: ", line.substr(0, 80)));
      continue;
    }
    try {
      if (checksum_of(folder / name) == line.substr(0, kDigits)) continue;
      problems.push_back(concat((folder / name).string(), " is not what ", kChecksumFile,
                                " says: some of its bytes changed"));
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  }
  return true;
}

}  // namespace lowbit

#include "lowbit/checkpoint/hub_cache.h"

#include <algorithm>
#include <cstdlib>

#include "lowbit/base/check.h"
#include "lowbit/base/file.h"
#include "lowbit/checkpoint/paths.h"

namespace lowbit {

namespace {

// The commit in refs/main, or the only snapshot there is; empty if neither.
fs::path find_snapshot(const fs::path& repository) {
  const fs::path ref = repository / "refs" / "main";
  if (path_exists(ref)) {
    const std::string commit = read_ref(ref);
    LOWBIT_CHECK_KIND(is_plain_name(commit), ErrorKind::kCorruptFile, ref.string(),
                      ": does not hold the name of a commit");
    const fs::path snapshot = repository / "snapshots" / commit;
    if (is_folder(snapshot)) return snapshot;
  }
  const std::vector<fs::path> snapshots = folder_entries(repository / "snapshots");
  return snapshots.size() == 1 ? snapshots.front() : fs::path();
}

}  // namespace

std::vector<std::string> hub_cache_folders() {
  std::vector<std::string> folders;
  const auto add = [&](const char* variable, const char* below) {
    const char* value = std::getenv(variable);
    if (value == nullptr || *value == '\0') return;
    const std::string folder = (fs::path(value) / below).string();
    if (std::find(folders.begin(), folders.end(), folder) == folders.end()) {
      folders.push_back(folder);
    }
  };
  add("HF_HUB_CACHE", "");
  add("HUGGINGFACE_HUB_CACHE", "");
  add("HF_HOME", "hub");
  add("XDG_CACHE_HOME", "huggingface/hub");
  add("HOME", ".cache/huggingface/hub");
  return folders;
}

bool is_hub_name(const std::string& model) {
  const size_t slash = model.find('/');
  if (slash == std::string::npos) return is_plain_name(model);
  return is_plain_name(model.substr(0, slash)) && is_plain_name(model.substr(slash + 1));
}

std::string hub_folder_name(const std::string& model) {
  std::string name = "models--" + model;
  if (const size_t slash = name.find('/'); slash != std::string::npos) name.replace(slash, 1, "--");
  return name;
}

std::string read_ref(const std::string& file) {
  constexpr size_t kRefBytes = 4096;
  std::string commit = read_file(file, kRefBytes);
  while (!commit.empty() && (commit.back() == '\n' || commit.back() == ' ')) commit.pop_back();
  return commit;
}

std::string find_in_hub_cache(const std::string& model) {
  const std::string folder_name = hub_folder_name(model);
  std::string looked;
  for (const std::string& cache : hub_cache_folders()) {
    const fs::path repository = fs::path(cache) / folder_name;
    looked += concat("\n  ", repository.string());
    if (!is_folder(repository)) continue;
    const fs::path snapshot = find_snapshot(repository);
    LOWBIT_CHECK_KIND(!snapshot.empty(), ErrorKind::kIo, repository.string(),
                      ": holds no complete snapshot; fetch the model with lowbit pull ", model);
    return snapshot.string();
  }
  fail(ErrorKind::kIo, "no model \"", model, "\": no such file or folder, and not in the Hugging ",
       "Face cache, looked in", looked.empty() ? " no folder, as HOME is not set" : looked,
       "\nfetch it with lowbit pull ", model, ", or give a folder or a .gguf file");
}

}  // namespace lowbit

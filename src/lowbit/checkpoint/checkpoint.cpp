#include "lowbit/checkpoint/checkpoint.h"

#include <algorithm>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/file.h"
#include "lowbit/checkpoint/gguf_checkpoint.h"
#include "lowbit/checkpoint/hf_checkpoint.h"
#include "lowbit/checkpoint/hub_cache.h"
#include "lowbit/checkpoint/paths.h"

namespace lowbit {

namespace {

// GGUF files in a folder, of models in parts the first.
std::vector<std::string> gguf_models(const fs::path& folder) {
  std::vector<std::string> files;
  for (const fs::path& entry : folder_entries(folder)) {
    const std::string name = entry.string();
    const bool later_part =
        name.find("-of-") != std::string::npos && name.find("-00001-of-") == std::string::npos;
    if (entry.extension() == ".gguf" && !later_part) files.push_back(name);
  }
  return files;
}

// A folder with one GGUF model (one file, or the parts of one), perhaps in a folder of its own, and
// no config.json stands for it.
std::string resolve_folder(const fs::path& folder) {
  if (path_exists(folder / "config.json")) return folder.string();
  std::vector<std::string> files = gguf_models(folder);
  if (files.empty()) {
    for (const fs::path& entry : folder_entries(folder)) {
      if (!is_folder(entry)) continue;
      for (std::string& name : gguf_models(entry)) files.push_back(std::move(name));
    }
  }
  if (files.empty()) return folder.string();
  LOWBIT_CHECK(files.size() == 1, folder.string(), ": holds ", files.size(),
               " GGUF models; name one, such as ", files.front());
  return files.front();
}

bool begins_with_gguf(const std::string& path) {
  const MappedFile file(path);
  return file.size() >= 4 && std::equal(file.data(), file.data() + 4, "GGUF");
}

}  // namespace

bool Checkpoint::contains(const std::string& name) const {
  return std::any_of(tensors().begin(), tensors().end(),
                     [&](const TensorInfo& tensor) { return tensor.name == name; });
}

std::string resolve_model(const std::string& model) {
  LOWBIT_CHECK(!model.empty(), "no model given; name a folder, a .gguf file or org/name");
  if (is_folder(model)) return resolve_folder(model);
  if (path_exists(model)) return model;
  LOWBIT_CHECK_KIND(is_hub_name(model), ErrorKind::kIo, model, ": no such file or folder");
  return resolve_folder(find_in_hub_cache(model));
}

std::unique_ptr<Checkpoint> open_checkpoint(const std::string& model) {
  const std::string path = resolve_model(model);
  if (is_folder(path)) return open_hf_checkpoint(path);
  const fs::path file(path);
  if (file.extension() == ".gguf" || begins_with_gguf(path)) return open_gguf_checkpoint(path);
  LOWBIT_CHECK_KIND(file.extension() != ".safetensors", ErrorKind::kInvalidArgument, path,
                    ": give the folder that holds it, together with its config.json");
  fail(ErrorKind::kUnsupported, path, ": not a GGUF file; give a folder, a .gguf file or org/name");
}

}  // namespace lowbit

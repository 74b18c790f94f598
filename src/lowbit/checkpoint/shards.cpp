#include "lowbit/checkpoint/shards.h"

#include <optional>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/paths.h"
#include "lowbit/checkpoint/problems.h"

namespace lowbit {

namespace {

// Files of the folder with this ending, sorted.
std::vector<fs::path> files_ending(const fs::path& folder, const std::string& ending) {
  std::vector<fs::path> found = folder_entries(folder);
  std::erase_if(found, [&](const fs::path& path) { return !ends_with(path.string(), ending); });
  return found;
}

[[noreturn]] void fail_no_weights(const fs::path& folder) {
  for (const char* ending : {".bin", ".pt", ".pth"}) {
    const std::vector<fs::path> pickles = files_ending(folder, ending);
    if (pickles.empty()) continue;
    fail(ErrorKind::kUnsupported, folder.string(), ": holds ", pickles.front().filename().string(),
         " but no safetensors file; lowbit does not read pickles, which can run code. Convert it: "
         "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OUT)");
  }
  const std::vector<fs::path> ggufs = files_ending(folder, ".gguf");
  if (!ggufs.empty()) {
    fail(ErrorKind::kInvalidArgument, folder.string(), ": holds a config.json but no safetensors ",
         "file; name the GGUF file, such as ", ggufs.front().string());
  }
  fail(ErrorKind::kIo, folder.string(),
       ": no model.safetensors and no model.safetensors.index.json; is the download complete?");
}

// The index that names the shards, or the one file that holds everything.
struct WeightFiles {
  std::optional<fs::path> index;
  fs::path single;
};

WeightFiles find_weights(const fs::path& folder) {
  if (path_exists(folder / "model.safetensors")) return {{}, folder / "model.safetensors"};
  if (path_exists(folder / "model.safetensors.index.json")) {
    return {folder / "model.safetensors.index.json", {}};
  }
  // Some quantizers use another base name.
  const std::vector<fs::path> indices = files_ending(folder, ".safetensors.index.json");
  if (indices.size() == 1) return {indices.front(), {}};
  const std::vector<fs::path> files = files_ending(folder, ".safetensors");
  if (files.empty()) fail_no_weights(folder);
  LOWBIT_CHECK_KIND(files.size() == 1, ErrorKind::kIo, folder.string(), ": ", files.size(),
                    " safetensors files but no model.safetensors.index.json that says which hold ",
                    "the model; is the download complete?");
  return {{}, files.front()};
}

}  // namespace

std::map<std::string, std::string> parse_weight_map(const Json& index, const std::string& origin) {
  const auto corrupt = [&](const auto&... parts) {
    fail(ErrorKind::kCorruptFile, origin, ": ", parts...);
  };
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    corrupt("needs a \"weight_map\" object");
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor_name, file] : index["weight_map"].items()) {
    const std::string tensor = tensor_name.substr(0, 100);  // for errors
    if (!file.is_string()) corrupt("weight_map of \"", tensor, "\" is not a file name");
    const auto& name = file.get_ref<const std::string&>();
    if (!is_plain_name(name)) {
      corrupt("weight_map of \"", tensor, "\" names ", dump_json(Json(name.substr(0, 100))),
              ", which is not the plain name of a file in the folder");
    }
    files.emplace(tensor_name, name);
  }
  return files;
}

ShardedSafetensors::ShardedSafetensors(const fs::path& folder) : folder_(folder) {
  const WeightFiles weights = find_weights(folder);
  if (weights.index) {
    open_shards(folder, *weights.index);
    return;
  }
  files_.emplace_back(weights.single);
  for (const auto& [name, entry] : files_.front().header().tensors) tensors_.emplace(name, 0);
}

void ShardedSafetensors::open_shards(const fs::path& folder, const fs::path& index) {
  const std::map<std::string, std::string> weight_map =
      parse_weight_map(read_json(index.string()), index.string());
  std::map<std::string, size_t> shards;  // file name -> its place in files_
  Problems problems;
  for (const auto& [tensor, file] : weight_map) {
    if (shards.count(file) != 0) continue;
    LOWBIT_CHECK_KIND(shards.size() < limits::kShardCount, ErrorKind::kCorruptFile, index.string(),
                      ": more than ", limits::kShardCount, " shards");
    if (!path_exists(folder / file)) {
      problems.add(file, " is missing");
      shards.emplace(file, SIZE_MAX);
      continue;
    }
    shards.emplace(file, files_.size());
    files_.emplace_back(folder / file);
  }
  problems.check(ErrorKind::kIo,
                 concat(folder.string(), ": shards that ", index.filename().string(),
                        " lists are absent; fetch them (again)"));

  std::map<std::string, size_t> holders;
  for (size_t i = 0; i < files_.size(); ++i) {
    for (const auto& [name, entry] : files_[i].header().tensors) {
      const auto [it, added] = holders.emplace(name, i);
      if (added) continue;
      problems.add("tensor \"", name, "\" is in ", files_[it->second].file().path().filename(),
                   " and in ", files_[i].file().path().filename());
    }
  }
  for (const auto& [name, file] : weight_map) {
    const size_t shard = shards.at(file);
    if (files_[shard].contains(name)) {
      tensors_.emplace(name, shard);
    } else {
      problems.add("tensor \"", name, "\" is not in ", file);
    }
  }
  problems.check(ErrorKind::kCorruptFile,
                 concat(index.string(), " and the shards contradict each other"));
}

StoredTensor ShardedSafetensors::tensor(const std::string& name) const {
  const auto it = tensors_.find(name);
  LOWBIT_CHECK_KIND(it != tensors_.end(), ErrorKind::kCorruptFile, "tensor \"", name,
                    "\" is missing; is the download complete, and config.json of this model?");
  return files_[it->second].tensor(name);
}

const SafetensorsHeader::Entry& ShardedSafetensors::entry(const std::string& name) const {
  return files_[tensors_.at(name)].header().tensors.at(name);
}

std::string ShardedSafetensors::file_of(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? folder_.string() : files_[it->second].file().path().string();
}

void ShardedSafetensors::release(const std::string& prefix) const {
  for (auto it = tensors_.lower_bound(prefix);
       it != tensors_.end() && it->first.compare(0, prefix.size(), prefix) == 0; ++it) {
    const SafetensorsFile& file = files_[it->second];
    const SafetensorsHeader::Entry& entry = file.header().tensors.at(it->first);
    file.file().release(entry.begin, entry.end - entry.begin);
  }
}

void ShardedSafetensors::check() const {
  for (const SafetensorsFile& file : files_) file.file().check();
}

}  // namespace lowbit

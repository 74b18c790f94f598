// The safetensors files of one Hugging Face folder as one set of tensors.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lowbit/checkpoint/formats.h"
#include "lowbit/checkpoint/safetensors.h"

namespace lowbit {

// Tensor name -> file name, of a model.safetensors.index.json document. File names must be plain
// names of files beside the index; throws kCorruptFile otherwise.
std::map<std::string, std::string> parse_weight_map(const Json& index, const std::string& origin);

// model.safetensors, or the shards that an index lists. Tensors that a shard holds and the index
// does not name are ignored, as transformers does.
class ShardedSafetensors final : public TensorSource {
 public:
  // Throws Error listing missing shards and tensors, or saying what the folder holds instead.
  explicit ShardedSafetensors(const fs::path& folder);

  bool contains(const std::string& name) const override { return tensors_.count(name) != 0; }
  // Throws kCorruptFile naming the tensor if there is none.
  StoredTensor tensor(const std::string& name) const override;

  // Tensor name -> index of its file.
  const std::map<std::string, size_t>& tensors() const { return tensors_; }
  const SafetensorsHeader::Entry& entry(const std::string& name) const;
  // The file that holds the tensor, for errors.
  std::string file_of(const std::string& name) const;
  // Gives the pages of every tensor whose name begins with `prefix` back to the system.
  void release(const std::string& prefix) const;
  // Throws kIo if a file became shorter since it was opened.
  void check() const;

 private:
  void open_shards(const fs::path& folder, const fs::path& index);

  fs::path folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t> tensors_;
};

}  // namespace lowbit

// Finished parts seen as checkpoints, so that what was written can be read back before there is a
// whole one.
#pragma once

#include <map>

#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/quantize/output.h"

namespace lowbit {

// What parts of every kind of output have in common: the tensors of a file, without a config.
class PartView : public Checkpoint {
 public:
  const std::string& path() const override { return path_; }
  const std::string& format() const override { return format_name_; }
  const Json& config() const override { return none_; }
  const Json& generation_config() const override { return none_; }
  TokenizerSpec tokenizer() const override;  // throws kIo: a part has none
  const std::vector<TensorInfo>& tensors() const override { return infos_; }  // empty
  void release(const std::string&) const override {}

 protected:
  PartView(const PartFile& file, std::string format);
  // By the name in the file; null if there is none.
  const StoredTensor* find_stored(const std::string& name) const;

 private:
  std::string path_, format_name_;
  Json none_;
  std::map<std::string, StoredTensor> tensors_;
  std::vector<TensorInfo> infos_;
};

// Of a Hugging Face folder.
class PartCheckpoint final : public PartView, private TensorSource {
 public:
  PartCheckpoint(const PartFile& file, const CheckpointFormat& format, Json quantization_config);

  LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const override;
  std::vector<float> load_vector(const std::string& name, int64_t size) const override;

 private:
  bool contains(const std::string& name) const override { return find_stored(name) != nullptr; }
  StoredTensor tensor(const std::string& name) const override;

  const CheckpointFormat& format_;
  Json quantization_config_;
};

}  // namespace lowbit

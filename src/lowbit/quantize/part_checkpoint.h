// PartCheckpoint: a finished part seen as a checkpoint, so that what was written can be read back
// before there is a whole one.
#pragma once

#include <map>

#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/quantize/output.h"

namespace lowbit {

class PartCheckpoint final : public Checkpoint, private TensorSource {
 public:
  PartCheckpoint(const PartFile& file, const CheckpointFormat& format, Json quantization_config);

  const std::string& path() const override { return path_; }
  const std::string& format() const override { return format_name_; }
  const Json& config() const override { return none_; }
  const Json& generation_config() const override { return none_; }
  TokenizerSpec tokenizer() const override;  // throws kIo: a part has none
  const std::vector<TensorInfo>& tensors() const override { return infos_; }  // empty
  LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const override;
  std::vector<float> load_vector(const std::string& name, int64_t size) const override;
  void release(const std::string&) const override {}

 private:
  bool contains(const std::string& name) const override { return tensors_.count(name) != 0; }
  StoredTensor tensor(const std::string& name) const override;

  std::string path_, format_name_;
  const CheckpointFormat& format_;
  Json quantization_config_, none_;
  std::map<std::string, StoredTensor> tensors_;
  std::vector<TensorInfo> infos_;
};

}  // namespace lowbit

// GgufPart: a finished part of a GGUF file seen as a checkpoint in Hugging Face's terms.
#pragma once

#include <functional>
#include <map>

#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/quantize/output.h"

namespace lowbit {

class GgufPart final : public Checkpoint {
 public:
  // The stored row of each row of a module; empty if they are the same.
  using RowOrder = std::function<std::vector<int64_t>(const std::string& module, int64_t rows)>;

  GgufPart(const PartFile& file, RowOrder order);

  const std::string& path() const override { return path_; }
  const std::string& format() const override { return format_name_; }
  const Json& config() const override { return none_; }
  const Json& generation_config() const override { return none_; }
  TokenizerSpec tokenizer() const override;  // throws kIo: a part has none
  const std::vector<TensorInfo>& tensors() const override { return infos_; }  // empty
  LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const override;
  // Names that GGUF does not have are those of what was stored beside the weights.
  std::vector<float> load_vector(const std::string& name, int64_t size) const override;
  void release(const std::string&) const override {}

 private:
  const StoredTensor* find(const std::string& name) const;
  QTensor read(const std::string& name, std::vector<int64_t> shape,
               const std::vector<int64_t>& order) const;

  std::string path_, format_name_ = "gguf";
  RowOrder order_;
  Json none_;
  std::map<std::string, StoredTensor> tensors_;  // by GGUF's names
  std::vector<TensorInfo> infos_;
};

}  // namespace lowbit

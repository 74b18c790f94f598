// GgufPart: a finished part of a GGUF file seen as a checkpoint in Hugging Face's terms.
#pragma once

#include <functional>

#include "lowbit/quantize/part_checkpoint.h"

namespace lowbit {

class GgufPart final : public PartView {
 public:
  // The stored row of each row of a module; empty if they are the same.
  using RowOrder = std::function<std::vector<int64_t>(const std::string& module, int64_t rows)>;

  GgufPart(const PartFile& file, RowOrder order);

  LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const override;
  // Names that GGUF does not have are those of what was stored beside the weights.
  std::vector<float> load_vector(const std::string& name, int64_t size) const override;

 private:
  const StoredTensor* find(const std::string& name) const;
  QTensor read(const std::string& name, std::vector<int64_t> shape,
               const std::vector<int64_t>& order) const;

  RowOrder order_;
};

}  // namespace lowbit

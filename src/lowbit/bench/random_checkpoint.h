// A checkpoint without files: the shape of a known model, with random weights in any format, to
// measure speed. Layers of one shape share their random codes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"

namespace lowbit {

// "llama-3.1-8b", ...
std::vector<std::string> random_shapes();
// "bf16", "w4a16_g128", "fp8", ...
std::vector<std::string> random_formats();

class RandomCheckpoint : public Checkpoint {
 public:
  // Formats of up to 8 bits have an 8-bit head. Throws kInvalidArgument listing what there is.
  RandomCheckpoint(const std::string& shape, const std::string& format);

  const std::string& path() const override { return path_; }
  const std::string& format() const override { return format_; }
  const Json& config() const override { return config_; }
  const Json& generation_config() const override { return none_; }
  TokenizerSpec tokenizer() const override;
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const override;
  std::vector<float> load_vector(const std::string& name, int64_t size) const override;
  void release(const std::string&) const override {}

 private:
  std::string path_, format_;
  Json config_, none_;
  std::vector<TensorInfo> tensors_;
  mutable std::map<std::string, QTensor> made_;
};

// Random weights, normal in size for a model; the same for the same arguments.
QTensor random_qtensor(const QuantScheme& scheme, int64_t rows, int64_t cols, uint64_t seed);

}  // namespace lowbit

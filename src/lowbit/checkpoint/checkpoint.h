// Checkpoint: a model on disk, whatever its files are, seen in Hugging Face's terms: a config.json
// document, HF tensor names, weights as QTensors. A GGUF file presents itself the same way (names
// translated, q/k rows put back into HF order), so nothing above knows which kind it was.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/tensor/qtensor.h"
#include "lowbit/tokenizer/tokenizer_spec.h"

namespace lowbit {

struct TensorInfo {
  std::string name;            // HF name, of a module's weight: "model.layers.0.mlp.up_proj.weight"
  std::vector<int64_t> shape;  // [rows, cols] or [n], as dequantized
  std::string format;          // as stored: "BF16", "Q4_1", "w4_g64"
  int64_t bytes = 0;           // in the file, scales and zeros included
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  virtual const std::string& path() const = 0;
  virtual const std::string& format() const = 0;  // "gguf", "safetensors", "gptq", ...
  // config.json; for GGUF one made from the metadata. With rope factors stored as a tensor
  // (GGUF's rope_freqs) "rope_scaling" is {"rope_type": "factors", "factors": [...]}.
  virtual const Json& config() const = 0;
  virtual const Json& generation_config() const = 0;  // null if there is none
  // Throws kIo naming tokenizer.json if the checkpoint has no tokenizer.
  virtual TokenizerSpec tokenizer() const = 0;

  // Every weight the model could ask for: quantized linears once (as "<module>.weight").
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  // Whether tensors() lists it; cheaper.
  virtual bool contains(const std::string& name) const;

  // "<module>.weight" with any quantization, and "<module>.bias" if stored. Validated against
  // rows x cols, which the caller knows from the config; throws kCorruptFile naming module, file,
  // shapes.
  virtual LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const = 0;
  // A dense vector (norm weights) as fp32, of exactly `size` elements.
  virtual std::vector<float> load_vector(const std::string& name, int64_t size) const = 0;
  // Tells the system that the file's pages of this module are not needed any more. Weights may be
  // views of the file: throws kIo if it became shorter since it was opened, so that zeros are not
  // taken for weights.
  virtual void release(const std::string& module) const = 0;
};

// MODEL is a folder, a .gguf file, or "org/name" in the Hugging Face cache ($HF_HUB_CACHE,
// $HF_HOME/hub, ~/.cache/huggingface/hub). Throws Error saying what is missing and what to do.
std::unique_ptr<Checkpoint> open_checkpoint(const std::string& model);

// The path that open_checkpoint would read.
std::string resolve_model(const std::string& model);

}  // namespace lowbit

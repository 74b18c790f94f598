// The table of checkpoint formats in a Hugging Face folder: how each stores one linear layer.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/checkpoint/safetensors.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit {

// Tensors of a folder by name, over all its shards.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual bool contains(const std::string& name) const = 0;
  virtual StoredTensor tensor(const std::string& name) const = 0;
};

// Modules that have a scheme of their own.
struct SchemeModules {
  QuantScheme scheme;
  std::vector<std::string> modules;
};

struct CheckpointFormat {
  const char* name;  // "gptq": --format, and what inspect prints
  // Whether config.json's quantization_config (null if absent) is of this format.
  bool (*detect)(const Json& quantization_config);
  // Whether `module` is stored quantized here.
  bool (*quantized)(const TensorSource& source, const std::string& module);
  // Reads a quantized module's weight. Throws kCorruptFile or kUnsupported naming module and cause.
  QTensor (*read)(const TensorSource& source, const Json& quantization_config,
                  const std::string& module);

  // Writing; null where lowbit does not write the format.
  // Throws kInvalidArgument listing what the format can hold if it cannot hold this weight.
  std::vector<StoredTensor> (*write)(const std::string& module, const QTensor& weight);
  Json (*quantization_config)(const QuantScheme& scheme, const std::vector<std::string>& skipped);

  // Shape and scheme of a quantized module without reading its codes, for listings: fills scheme,
  // rows and cols. Null: the weight is read for it.
  QTensor (*describe)(const TensorSource& source, const Json& quantization_config,
                      const std::string& module) = nullptr;
  // Makes a quantization_config say that weights have an input_order. Null: they cannot.
  void (*describe_order)(Json& quantization_config) = nullptr;
  // Whether quantization_config() says what QuantScheme::input_bits is.
  bool says_input_bits = false;
  // quantization_config() of a model whose modules have different schemes. Null: they cannot.
  Json (*mixed_config)(std::span<const SchemeModules> schemes,
                       const std::vector<std::string>& skipped) = nullptr;
};

// All rows; "safetensors" (nothing quantized) is the last and detects anything without a
// quantization_config.
std::span<const CheckpointFormat> checkpoint_formats();
// Throws kUnsupported listing the names there are.
const CheckpointFormat& checkpoint_format(const std::string& name);
// The row that detects this quantization_config (null if there is none). Throws kUnsupported naming
// the method and the formats that can be read.
const CheckpointFormat& detect_checkpoint_format(const Json& quantization_config,
                                                 const std::string& origin);

}  // namespace lowbit

#include "lowbit/checkpoint/formats/auto_round.h"

#include <algorithm>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/base/version.h"
#include "lowbit/checkpoint/formats/awq.h"
#include "lowbit/checkpoint/formats/fields.h"
#include "lowbit/checkpoint/formats/gptq.h"

namespace lowbit {

namespace {

constexpr const char* kConfig = "quantization_config";

bool is_auto_round(const Json& config) {
  return has_method(config, "auto-round") || has_method(config, "auto_round") ||
         has_method(config, "intel/auto-round");
}

// Files spell it in many ways ("auto_round:auto_gptq:exllamav2"), old ones under "backend".
std::string packing_of(const Json& config) {
  std::string packing = json_string(config, "packing_format", "", kConfig);
  if (packing.empty()) packing = json_string(config, "backend", "", kConfig);
  packing = lower_case(packing);
  return packing.empty() || packing == "auto" ? "auto_round:auto_gptq" : packing;
}

bool is_awq(const Json& config) { return packing_of(config).find("awq") != std::string::npos; }

bool detect_gptq(const Json& config) { return is_auto_round(config) && !is_awq(config); }
bool detect_awq(const Json& config) { return is_auto_round(config) && is_awq(config); }

void check_supported(const Json& config, const std::string& module) {
  const std::string type = lower_case(json_string(config, "data_type", "int", kConfig));
  LOWBIT_CHECK_KIND(type.rfind("int", 0) == 0, ErrorKind::kUnsupported, module,
                    ": AutoRound checkpoint with data_type \"", type, "\"; lowbit reads int");
  const int64_t act_bits = json_int(config, "act_bits", 16, kConfig);
  LOWBIT_CHECK_KIND(act_bits > 8, ErrorKind::kUnsupported, module, ": AutoRound checkpoint with ",
                    act_bits, "-bit activations; lowbit reads those that keep 16");
  const auto rotation = config.find("rotation_config");
  LOWBIT_CHECK_KIND(rotation == config.end() || rotation->is_null() || rotation->empty(),
                    ErrorKind::kUnsupported, module, ": AutoRound checkpoint with rotated inputs");
}

// Adds `constant` to each word of .qzeros.
class AddedZeros final : public TensorSource {
 public:
  AddedZeros(const TensorSource& source, uint32_t constant)
      : source_(source), constant_(constant) {}
  bool contains(const std::string& name) const override { return source_.contains(name); }
  StoredTensor tensor(const std::string& name) const override {
    StoredTensor tensor = source_.tensor(name);
    if (!name.ends_with(".qzeros") || tensor.dtype != "I32") return tensor;
    std::vector<uint8_t> bytes = bytes_of(tensor);
    for (size_t i = 0; i + 4 <= bytes.size(); i += 4) {
      uint32_t word;
      std::memcpy(&word, bytes.data() + i, 4);
      word += constant_;
      std::memcpy(bytes.data() + i, &word, 4);
    }
    tensor.bytes = Bytes::own(std::move(bytes));
    return tensor;
  }

 private:
  const TensorSource& source_;
  uint32_t constant_;
};

Json gptq_config(const Json& config, const char* layout) {
  Json plain = {{"quant_method", "gptq"}, {"checkpoint_format", layout}};
  for (const char* key : {"bits", "group_size"}) {
    if (config.contains(key)) plain[key] = config[key];
  }
  // Modules set apart: their tensors say what they are.
  const auto extra = config.find("extra_config");
  if (extra != config.end() && extra->is_object() && !extra->empty()) {
    plain["dynamic"] = Json::object();
  }
  return plain;
}

template <auto kRead>
QTensor read_gptq(const TensorSource& source, const Json& config, const std::string& module) {
  check_supported(config, module);
  const std::string packing = packing_of(config);
  const bool as_they_are =
      packing.find("gptqmodel") != std::string::npos || packing.find("gptq") == std::string::npos;
  if (as_they_are) return (kGptqFormat.*kRead)(source, gptq_config(config, "gptq_v2"), module);
  // AutoRound sums the fields of a word less one, so that a zero of 0 borrows from the field above:
  // adding one to all fields of the word at once takes that back.
  const int64_t bits = json_int(config, "bits", 4, kConfig);
  const uint32_t ones = bits == 2   ? 0x55555555u
                        : bits == 4 ? 0x11111111u
                        : bits == 8 ? 0x01010101u
                                    : 0;
  const bool apart = gptq_config(config, "gptq").contains("dynamic");
  if (ones == 0 || apart) {
    return (kGptqFormat.*kRead)(source, gptq_config(config, "gptq"), module);
  }
  return (kGptqFormat.*kRead)(AddedZeros(source, ones), gptq_config(config, "gptq_v2"), module);
}

template <auto kRead>
QTensor read_awq(const TensorSource& source, const Json& config, const std::string& module) {
  check_supported(config, module);
  Json plain = {{"quant_method", "awq"}};
  for (const char* key : {"bits", "group_size"}) {
    if (config.contains(key)) plain[key] = config[key];
  }
  return (kAwqFormat.*kRead)(source, plain, module);
}

std::vector<StoredTensor> write_gptq(const std::string& module, const QTensor& weight) {
  LOWBIT_CHECK(weight.input_order.empty(), module,
               ": auto-round cannot hold a column order; gptq can");
  QTensor shifted = weight;
  // Asymmetric zeros are stored as they are; GPTQ's writer stores them less one.
  const uint32_t mask = (1u << std::min(weight.scheme.bits, 8)) - 1;
  for (uint8_t& zero : shifted.zeros) zero = static_cast<uint8_t>((zero + 1) & mask);
  std::vector<StoredTensor> tensors = kGptqFormat.write(module, shifted);
  std::erase_if(tensors, [](const StoredTensor& tensor) { return tensor.name.ends_with("g_idx"); });
  return tensors;
}

Json description(const QuantScheme& scheme, const std::vector<std::string>& skipped,
                 const char* packing) {
  Json extra = Json::object();
  for (const std::string& module : skipped) {
    if (module != "lm_head") extra[module] = {{"bits", 16}, {"data_type", "float"}};
  }
  Json config = {{"quant_method", "auto-round"},
                 {"packing_format", packing},
                 {"bits", scheme.bits},
                 {"group_size", scheme.group_size > 0 ? scheme.group_size : -1},
                 {"sym", scheme.zero == Zero::kNone},
                 {"data_type", "int"},
                 {"autoround_version", "0.5.1"},
                 {"provider", concat("lowbit:", kVersion)},
                 {"block_name_to_quantize", "model.layers"}};
  if (!extra.empty()) config["extra_config"] = extra;
  return config;
}

Json gptq_description(const QuantScheme& scheme, const std::vector<std::string>& skipped) {
  const bool symmetric = scheme.zero == Zero::kNone;
  return description(scheme, skipped, symmetric ? "auto_round:auto_gptq" : "auto_round");
}

Json awq_description(const QuantScheme& scheme, const std::vector<std::string>& skipped) {
  return description(scheme, skipped, "auto_round:auto_awq");
}

bool quantized(const TensorSource& source, const std::string& module) {
  return source.contains(module + ".qweight");
}

std::vector<StoredTensor> write_awq(const std::string& module, const QTensor& weight) {
  return kAwqFormat.write(module, weight);
}

}  // namespace

const CheckpointFormat kAutoRoundFormat = {"auto-round",
                                           detect_gptq,
                                           quantized,
                                           read_gptq<&CheckpointFormat::read>,
                                           write_gptq,
                                           gptq_description,
                                           read_gptq<&CheckpointFormat::describe>};

const CheckpointFormat kAutoRoundAwqFormat = {"auto-round-awq",
                                              detect_awq,
                                              quantized,
                                              read_awq<&CheckpointFormat::read>,
                                              write_awq,
                                              awq_description,
                                              read_awq<&CheckpointFormat::describe>};

}  // namespace lowbit

#include "lowbit/checkpoint/formats/compressed_floats.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/compressed_tensors.h"
#include "lowbit/checkpoint/formats/fields.h"
#include "lowbit/checkpoint/formats/fp8.h"
#include "lowbit/tensor/codebook.h"

namespace lowbit {

namespace {

constexpr const char* kConfig = "quantization_config";
constexpr const char* kFloatTypes = "F32 BF16 F16";

enum class Kind { kPacked, kInt8, kFp8, kMxFp8, kMxFp4, kNvFp4 };

std::string dtype_of(const TensorSource& source, const std::string& name) {
  return source.contains(name) ? source.tensor(name).dtype : "";
}

Kind kind_of(const TensorSource& source, const std::string& module) {
  const std::string packed = dtype_of(source, module + ".weight_packed");
  const std::string plain = dtype_of(source, module + ".weight");
  const std::string scale = dtype_of(source, module + ".weight_scale");
  if (packed == "U8") return scale == "U8" || scale == "F8_E8M0" ? Kind::kMxFp4 : Kind::kNvFp4;
  if (plain == "I8") return Kind::kInt8;
  if (plain == "F8_E4M3") return scale == "U8" || scale == "F8_E8M0" ? Kind::kMxFp8 : Kind::kFp8;
  return Kind::kPacked;
}

void check_plain(const Json& config, const std::string& module) {
  const auto sparsity = config.find("sparsity_config");
  const std::string sparse = sparsity != config.end() && sparsity->is_object()
                                 ? json_string(*sparsity, "format", "dense", kConfig)
                                 : "dense";
  LOWBIT_CHECK_KIND(sparse == "dense", ErrorKind::kUnsupported, module,
                    ": compressed-tensors with sparsity ", sparse);
  const auto transform = config.find("transform_config");
  const bool rotated = transform != config.end() && transform->is_object() &&
                       transform->contains("config_groups") &&
                       !(*transform)["config_groups"].empty();
  LOWBIT_CHECK_KIND(!rotated, ErrorKind::kUnsupported, module,
                    ": compressed-tensors with weight transforms");
}

// A matrix's groups from the shape of its scales.
void group_columns(const StoredTensor& scale, QTensor& weight) {
  const std::vector<int64_t>& shape = scale.shape;
  if (shape.empty() || shape == std::vector<int64_t>{1}) {
    weight.scheme.group_rows = static_cast<int>(weight.rows);
    weight.scheme.group_size = weight.cols;
    return;
  }
  LOWBIT_CHECK_KIND(
      shape.size() == 2 && shape[0] == weight.rows && shape[1] > 0 && weight.cols % shape[1] == 0,
      ErrorKind::kCorruptFile, scale.name, " has shape ", shape_text(shape), ", must be [1] or [",
      weight.rows, ", groups]");
  weight.scheme.group_rows = 1;
  weight.scheme.group_size = weight.cols / shape[1];
}

QTensor matrix_of(const StoredTensor& tensor, int columns_per_byte, const QuantScheme& scheme) {
  LOWBIT_CHECK_KIND(tensor.shape.size() == 2, ErrorKind::kCorruptFile, tensor.name, " has shape ",
                    shape_text(tensor.shape), ", must be a matrix");
  QTensor weight;
  weight.scheme = scheme;
  weight.rows = tensor.shape[0];
  weight.cols = tensor.shape[1];
  expect_extents(tensor.name, weight.rows, weight.cols);
  weight.cols *= columns_per_byte;
  weight.codes = tensor.bytes;
  return weight;
}

QTensor read_int8(const TensorSource& source, const std::string& module) {
  QTensor weight = matrix_of(typed_tensor(source, module + ".weight", "I8"), 1, int_scheme(8, 1));
  std::vector<uint8_t> codes(weight.codes.data, weight.codes.data + weight.codes.size);
  for (uint8_t& code : codes) code ^= 0x80;
  weight.codes = Bytes::own(std::move(codes));
  const StoredTensor scale = typed_tensor(source, module + ".weight_scale", kFloatTypes);
  group_columns(scale, weight);
  weight.scales = floats_of(scale);
  const std::string zeros = module + ".weight_zero_point";
  if (source.contains(zeros)) {
    const StoredTensor tensor = typed_tensor(source, zeros, "I8");
    LOWBIT_CHECK_KIND(tensor.bytes.size == weight.scales.size(), ErrorKind::kCorruptFile, zeros,
                      " has shape ", shape_text(tensor.shape), ", weight_scale ",
                      shape_text(scale.shape));
    weight.zeros = bytes_of(tensor);
    for (uint8_t& zero : weight.zeros) zero ^= 0x80;
    weight.scheme.zero = Zero::kInt;
  }
  return weight;
}

// The "block_structure" of a config group: that of the group whose blocks fit the scale's shape.
QTensor read_fp8(const TensorSource& source, const Json& config, const std::string& module) {
  const StoredTensor codes = typed_tensor(source, module + ".weight", "F8_E4M3");
  const StoredTensor scale = typed_tensor(source, module + ".weight_scale", kFloatTypes);
  int64_t rows = 128, cols = 128;
  const auto groups = config.find("config_groups");
  if (groups != config.end() && groups->is_object()) {
    for (const Json& group : *groups) {
      if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object()) {
        continue;
      }
      const auto block = group["weights"].find("block_structure");
      if (block == group["weights"].end() || !block->is_array() || block->size() != 2) continue;
      rows = block_extent((*block)[0], kConfig);
      cols = block_extent((*block)[1], kConfig);
    }
  }
  const bool groups_of_columns = scale.shape.size() == 2 && codes.shape.size() == 2 &&
                                 codes.shape[0] > 1 && scale.shape[0] == codes.shape[0];
  if (!groups_of_columns) return fp8_weight(codes, scale, rows, cols);
  QTensor weight = matrix_of(codes, 1, fp8_scheme(1, 1));
  group_columns(scale, weight);
  weight.scales = floats_of(scale);
  return weight;
}

std::vector<float> powers_of_two(const StoredTensor& scale) {
  std::vector<float> values(scale.bytes.size);
  std::transform(scale.bytes.data, scale.bytes.data + scale.bytes.size, values.begin(),
                 e8m0_to_f32);
  return values;
}

QTensor read_mx(const TensorSource& source, const std::string& module, bool four_bits) {
  const StoredTensor scale = typed_tensor(source, module + ".weight_scale", "U8 F8_E8M0");
  QTensor weight = four_bits ? matrix_of(typed_tensor(source, module + ".weight_packed", "U8"), 2,
                                         table_scheme(Code::kE2M1, 32, ScaleForm::kE8M0))
                             : matrix_of(typed_tensor(source, module + ".weight", "F8_E4M3"), 1,
                                         fp8_scheme(1, 32, ScaleForm::kE8M0));
  expect_shape(scale, {weight.rows, (weight.cols + 31) / 32});
  weight.scales = powers_of_two(scale);
  return weight;
}

QTensor read_nvfp4(const TensorSource& source, const std::string& module) {
  QTensor weight = matrix_of(typed_tensor(source, module + ".weight_packed", "U8"), 2,
                             table_scheme(Code::kE2M1, 16, ScaleForm::kE4M3));
  const StoredTensor scale = typed_tensor(source, module + ".weight_scale", "F8_E4M3");
  expect_shape(scale, {weight.rows, (weight.cols + 15) / 16});
  const StoredTensor global = typed_tensor(source, module + ".weight_global_scale", "F32");
  LOWBIT_CHECK_KIND(global.bytes.size == 4, ErrorKind::kCorruptFile, global.name, " has shape ",
                    shape_text(global.shape), ", must be [1]");
  weight.global_scale = floats_of(global)[0];
  LOWBIT_CHECK_KIND(std::isfinite(weight.global_scale) && weight.global_scale > 0,
                    ErrorKind::kCorruptFile, global.name, " is ", weight.global_scale);
  weight.scales.resize(scale.bytes.size);
  for (size_t i = 0; i < weight.scales.size(); ++i) {
    weight.scales[i] = e4m3_to_f32(scale.bytes.data[i]) / weight.global_scale;
  }
  return weight;
}

// How inputs are rounded. bits 0: not, or in a way that lowbit does not follow.
struct Inputs {
  int bits = 0;
  InputForm form = InputForm::kToken;
  bool operator==(const Inputs&) const = default;
};

// "input_activations" of a config group whose weights are of `type`: only inputs of the same.
Inputs inputs_of(const Json& group, const std::string& type) {
  const auto inputs = group.find("input_activations");
  if (inputs == group.end() || !inputs->is_object()) return {};
  const auto found = inputs->find("dynamic");
  const bool dynamic = found != inputs->end() && *found == true;
  const bool fixed = found == inputs->end() || *found == false;
  const bool symmetric = json_bool(*inputs, "symmetric", true, kConfig);
  const std::string strategy =
      json_string(*inputs, "strategy", dynamic ? "token" : "tensor", kConfig);
  const int64_t bits = json_int(*inputs, "num_bits", 8, kConfig);
  const bool tokens = dynamic && strategy == "token", whole = fixed && strategy == "tensor";
  const bool floats = type == "float";
  if (json_string(*inputs, "type", "int", kConfig) != type || (floats && !symmetric)) return {};
  if (bits != 8 && (bits != 4 || floats)) return {};
  const int width = static_cast<int>(bits);
  if (tokens) return {width, symmetric ? InputForm::kToken : InputForm::kTokenZero};
  if (whole) return {width, symmetric ? InputForm::kStatic : InputForm::kStaticZero};
  const auto size = inputs->find("group_size");
  const bool groups = dynamic && strategy == "group" && size != inputs->end() && *size == 128;
  return floats && groups ? Inputs{8, InputForm::kGroup} : Inputs{};
}

// How the inputs of such a weight are rounded: as all config groups of its type and width say.
// Groups that contradict each other leave them as they are, since modules are not matched to
// groups.
Inputs inputs_for(const Json& config, const QuantScheme& scheme) {
  const std::string type = scheme.code == Code::kInt ? "int" : "float";
  const auto groups = config.find("config_groups");
  if (groups == config.end() || !groups->is_object()) return {};
  Inputs agreed;
  bool any = false;
  for (const Json& group : *groups) {
    if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object()) continue;
    const Json& weights = group["weights"];
    if (json_int(weights, "num_bits", 8, kConfig) != scheme.bits) continue;
    if (json_string(weights, "type", "int", kConfig) != type) continue;
    const Inputs stated = inputs_of(group, type);
    if (any && stated != agreed) return {};
    agreed = stated;
    any = true;
  }
  return agreed;
}

QTensor read_kind(Kind kind, const TensorSource& source, const Json& config,
                  const std::string& module) {
  switch (kind) {
    case Kind::kPacked:
      return kCompressedTensorsFormat.read(source, config, module);
    case Kind::kInt8:
      return read_int8(source, module);
    case Kind::kFp8:
      return read_fp8(source, config, module);
    case Kind::kMxFp8:
      return read_mx(source, module, false);
    case Kind::kMxFp4:
      return read_mx(source, module, true);
    case Kind::kNvFp4:
      return read_nvfp4(source, module);
  }
  return {};
}

// input_scale and input_zero_point of a module, each [1] or a scalar.
void read_static_inputs(const TensorSource& source, const std::string& module, QTensor& weight) {
  const auto single = [&](const std::string& name, const char* dtypes) {
    const StoredTensor tensor = typed_tensor(source, name, dtypes);
    if (!tensor.shape.empty()) expect_shape(tensor, {1});
    return tensor;
  };
  weight.input_scale = floats_of(single(module + ".input_scale", kFloatTypes))[0];
  if (weight.scheme.input_form != InputForm::kStaticZero) return;
  const StoredTensor zero = single(module + ".input_zero_point", "I8");
  weight.input_zero = static_cast<int8_t>(zero.bytes.data[0]);
}

QTensor with_inputs(QTensor weight, const Json& config) {
  QuantScheme& scheme = weight.scheme;
  const bool plain = scheme.scale_form == ScaleForm::kFloat;
  if (scheme.code == Code::kInt || (scheme.code == Code::kE4M3 && plain)) {
    const Inputs inputs = inputs_for(config, scheme);
    scheme.input_bits = inputs.bits;
    scheme.input_form = inputs.form;
  }
  return weight;
}

QTensor read(const TensorSource& source, const Json& config, const std::string& module) {
  check_plain(config, module);
  QTensor weight = with_inputs(read_kind(kind_of(source, module), source, config, module), config);
  if (weight.scheme.input_bits != 0 && has_static_inputs(weight.scheme)) {
    read_static_inputs(source, module, weight);
  }
  validate(weight, module);
  return weight;
}

QTensor describe(const TensorSource& source, const Json& config, const std::string& module) {
  const Kind kind = kind_of(source, module);
  const auto delegate = kCompressedTensorsFormat.describe;
  if (kind == Kind::kPacked && delegate != nullptr) {
    return with_inputs(delegate(source, config, module), config);
  }
  return with_inputs(read_kind(kind, source, config, module), config);
}

StoredTensor write_powers(const std::string& name, const QTensor& weight) {
  std::vector<uint8_t> exponents;
  for (const float scale : weight.scales) {
    int exponent;
    std::frexp(scale, &exponent);  // scale = 0.5 * 2^exponent
    exponents.push_back(static_cast<uint8_t>(exponent - 1 + 127));
  }
  return stored_bytes(name, "U8", {weight.rows, weight.groups()}, std::move(exponents));
}

StoredTensor write_fp8_scales(const std::string& name, const QTensor& weight) {
  std::vector<uint8_t> codes;
  for (const float scale : weight.scales) {
    const uint8_t code = f32_to_e4m3(scale * weight.global_scale);
    LOWBIT_CHECK(e4m3_to_f32(code) / weight.global_scale == scale, name, ": ", scale,
                 " is no 8-bit float over ", weight.global_scale);
    codes.push_back(code);
  }
  return stored_bytes(name, "F8_E4M3", {weight.rows, weight.groups()}, std::move(codes));
}

std::vector<StoredTensor> write_4bit(const std::string& module, const QTensor& weight) {
  const bool nv = weight.scheme.scale_form == ScaleForm::kE4M3;
  const int64_t group = nv ? 16 : 32;
  LOWBIT_CHECK(weight.scheme.group_size == group && weight.cols % group == 0 &&
                   weight.scheme.scale_form != ScaleForm::kFloat,
               module, ": nvfp4 needs groups of 16 and mxfp4 of 32 that divide the columns, not ",
               name_of(weight.scheme), " of ", weight.cols, " columns");
  const std::string scale = module + ".weight_scale";
  std::vector<StoredTensor> tensors = {
      {module + ".weight_packed", "U8", {weight.rows, weight.cols / 2}, weight.codes},
      nv ? write_fp8_scales(scale, weight) : write_powers(scale, weight)};
  if (nv) {
    tensors.push_back(stored_floats(module + ".weight_global_scale", {1}, {weight.global_scale}));
  }
  return tensors;
}

std::vector<StoredTensor> write_fp8(const std::string& module, const QTensor& weight) {
  const std::string scale = module + ".weight_scale";
  StoredTensor codes{module + ".weight", "F8_E4M3", {weight.rows, weight.cols}, weight.codes};
  if (weight.scheme.scale_form == ScaleForm::kE8M0) return {codes, write_powers(scale, weight)};
  const bool whole = weight.scales.size() == 1;
  const std::vector<int64_t> shape =
      whole ? std::vector<int64_t>{1} : std::vector<int64_t>{weight.scale_rows(), weight.groups()};
  return {codes, stored_floats(scale, shape, weight.scales)};
}

// W8A8, which programs run with integer products only from format int-quantized.
bool is_w8a8(const QuantScheme& scheme, int64_t cols) {
  return scheme.code == Code::kInt && scheme.bits == 8 && scheme.input_bits == 8 &&
         scheme.group_size == cols && scheme.group_rows == 1 && scheme.zero != Zero::kOffset;
}

std::vector<uint8_t> signed_codes(const uint8_t* codes, size_t count) {
  std::vector<uint8_t> bytes(codes, codes + count);
  for (uint8_t& byte : bytes) byte ^= 0x80;
  return bytes;
}

std::vector<StoredTensor> write_int8(const std::string& module, const QTensor& weight) {
  std::vector<StoredTensor> tensors = {
      stored_bytes(module + ".weight", "I8", {weight.rows, weight.cols},
                   signed_codes(weight.codes.data, weight.codes.size)),
      stored_halfs(module + ".weight_scale", {weight.rows, 1}, weight.scales)};
  if (weight.scheme.zero == Zero::kInt) {
    tensors.push_back(stored_bytes(module + ".weight_zero_point", "I8", {weight.rows, 1},
                                   signed_codes(weight.zeros.data(), weight.zeros.size())));
  }
  return tensors;
}

std::vector<StoredTensor> write_weight(const std::string& module, const QTensor& weight) {
  const Code code = weight.scheme.code;
  if (code != Code::kE2M1 && code != Code::kE4M3) {
    LOWBIT_CHECK(weight.outliers == nullptr, module,
                 ": compressed-tensors cannot hold outlier columns; use --format mixq");
    return is_w8a8(weight.scheme, weight.cols) && weight.input_order.empty()
               ? write_int8(module, weight)
               : kCompressedTensorsFormat.write(module, weight);
  }
  LOWBIT_CHECK(weight.input_order.empty(), module, ": ", name_of(weight.scheme),
               " cannot have a column order in compressed-tensors");
  return code == Code::kE2M1 ? write_4bit(module, weight) : write_fp8(module, weight);
}

std::vector<StoredTensor> write(const std::string& module, const QTensor& weight) {
  std::vector<StoredTensor> tensors = write_weight(module, weight);
  if (weight.scheme.input_bits == 0 || !has_static_inputs(weight.scheme)) return tensors;
  tensors.push_back(stored_floats(module + ".input_scale", {1}, {weight.input_scale}));
  if (weight.scheme.input_form == InputForm::kStaticZero) {
    const auto zero = static_cast<uint8_t>(static_cast<int8_t>(weight.input_zero));
    tensors.push_back(stored_bytes(module + ".input_zero_point", "I8", {1}, {zero}));
  }
  return tensors;
}

struct FloatConfig {
  const char* format;
  const char* strategy;
};

FloatConfig float_config(const QuantScheme& scheme) {
  if (scheme.code == Code::kE2M1) {
    return scheme.scale_form == ScaleForm::kE4M3
               ? FloatConfig{"nvfp4-pack-quantized", "tensor_group"}
               : FloatConfig{"mxfp4-pack-quantized", "group"};
  }
  if (scheme.scale_form == ScaleForm::kE8M0) return {"mxfp8-quantized", "group"};
  if (scheme.group_rows > 1) return {"float-quantized", "block"};
  if (scheme.group_size > 0) return {"float-quantized", "group"};
  return {"float-quantized", scheme.group_rows == 0 ? "tensor" : "channel"};
}

Json input_config(const QuantScheme& scheme) {
  const InputForm form = scheme.input_form;
  const bool fixed = has_static_inputs(scheme), groups = form == InputForm::kGroup;
  const bool zero = form == InputForm::kTokenZero || form == InputForm::kStaticZero;
  return {{"num_bits", scheme.input_bits},
          {"type", scheme.code == Code::kE4M3 ? "float" : "int"},
          {"symmetric", !zero},
          {"strategy", fixed    ? "tensor"
                       : groups ? "group"
                                : "token"},
          {"group_size", groups ? Json(128) : Json()},
          {"block_structure", nullptr},
          {"dynamic", !fixed},
          {"actorder", nullptr},
          {"observer", fixed ? Json("minmax") : Json()},
          {"observer_kwargs", Json::object()}};
}

Json write_config(const QuantScheme& scheme, const std::vector<std::string>& skipped) {
  Json config = kCompressedTensorsFormat.quantization_config(scheme, skipped);
  if (scheme.input_bits != 0) {
    config["config_groups"]["group_0"]["input_activations"] = input_config(scheme);
    if (is_w8a8(scheme, 0)) config["format"] = "int-quantized";
  }
  if (scheme.code != Code::kE2M1 && scheme.code != Code::kE4M3) return config;
  const FloatConfig description = float_config(scheme);
  const bool blocks = scheme.group_rows > 1;
  config["format"] = description.format;
  Json& weights = config["config_groups"]["group_0"]["weights"];
  weights["type"] = "float";
  weights["symmetric"] = true;
  weights["strategy"] = description.strategy;
  weights["group_size"] = scheme.group_size > 0 && !blocks ? Json(scheme.group_size) : Json();
  weights["block_structure"] =
      blocks ? Json::array({scheme.group_rows, scheme.group_size}) : Json();
  if (scheme.scale_form == ScaleForm::kE8M0) {
    weights["scale_dtype"] = weights["zp_dtype"] = "torch.uint8";
  } else if (scheme.scale_form == ScaleForm::kE4M3) {
    weights["scale_dtype"] = weights["zp_dtype"] = "torch.float8_e4m3fn";
  }
  return config;
}

bool detect(const Json& config) { return kCompressedTensorsFormat.detect(config); }

bool quantized(const TensorSource& source, const std::string& module) {
  return kCompressedTensorsFormat.quantized(source, module);
}

Json mixed_config(std::span<const SchemeModules> schemes, const std::vector<std::string>& skipped) {
  return kCompressedTensorsFormat.mixed_config(schemes, skipped);
}

void describe_order(Json& config) { kCompressedTensorsFormat.describe_order(config); }

}  // namespace

const CheckpointFormat kCompressedFormat = {
    .name = "compressed-tensors",
    .detect = detect,
    .quantized = quantized,
    .read = read,
    .write = write,
    .quantization_config = write_config,
    .describe = describe,
    .describe_order = describe_order,
    .says_input_bits = true,
    .mixed_config = mixed_config,
};

}  // namespace lowbit

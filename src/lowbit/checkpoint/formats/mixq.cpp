#include "lowbit/checkpoint/formats/mixq.h"

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/fields.h"
#include "lowbit/checkpoint/formats/mixq_copy.h"

namespace lowbit {

namespace {

constexpr const char* kConfig = "quantization_config";
constexpr const char* kFloatTypes = "F16 BF16 F32";
constexpr int kWholeInputs = 16;  // "a_bit" of inputs that are not rounded

bool detect(const Json& config) {
  if (!config.is_object()) return false;
  const auto version = config.find("version");
  return has_method(config, "mixq") || (version != config.end() && *version == "MIX");
}

bool detect_never(const Json&) { return false; }

bool quantized(const TensorSource& source, const std::string& module) {
  return source.contains(module + ".scale_col") || source.contains(module + ".q_scale_col");
}

// MIXQ's checkpoints, and layers that are weight-only, have no `weight`.
bool has_weight(const TensorSource& source, const std::string& module) {
  return source.contains(module + ".weight") || !source.contains(module + ".q_weight");
}

int bits_in(const Json& config, const char* key, int fallback) {
  const int64_t bits = json_int(config, key, fallback, kConfig);
  const bool inputs = std::string(key) == "a_bit";
  LOWBIT_CHECK_KIND(bits == 4 || bits == 8 || (inputs && bits == kWholeInputs),
                    ErrorKind::kUnsupported, kConfig, ": ", key, " is ", bits, "; MixQ has 4 and 8",
                    inputs ? ", and 16" : "");
  return static_cast<int>(bits);
}

// Inputs of a module whose weight has `bits` bits: 8-bit weights never meet inputs of 4.
int input_bits_of(const Json& config, int bits) {
  const int stated = bits_in(config, "a_bit", bits_in(config, "w_bit", bits));
  return stated == kWholeInputs ? 0 : std::max(stated, bits);
}

// Of a module that has only q_weight.
QTensor copy_of(const TensorSource& source, const Json& config, const std::string& module,
                bool with_codes) {
  return read_mixq_copy(
      source, module, [&](int bits) { return input_bits_of(config, bits); }, with_codes);
}

// Shape and scheme, and the codes as they are stored.
QTensor outline(const TensorSource& source, const Json& config, const std::string& module) {
  if (!has_weight(source, module)) return copy_of(source, config, module, false);
  LOWBIT_CHECK_KIND(source.contains(module + ".weight"), ErrorKind::kCorruptFile, module,
                    " has scales, but neither .weight nor .q_weight");
  const StoredTensor tensor = typed_tensor(source, module + ".weight", "I8 U8");
  LOWBIT_CHECK_KIND(tensor.shape.size() == 2, ErrorKind::kCorruptFile, tensor.name, " has shape ",
                    shape_text(tensor.shape), ", must be a matrix");
  const int bits = tensor.dtype == "I8" ? 8 : 4;
  QTensor weight;
  weight.rows = tensor.shape[0];
  weight.cols = tensor.shape[1];
  expect_extents(tensor.name, weight.rows, weight.cols);
  weight.cols *= 8 / bits;
  weight.scheme = int_scheme(bits, weight.cols);
  weight.scheme.input_bits = input_bits_of(config, bits);
  weight.codes = tensor.bytes;
  return weight;
}

std::shared_ptr<const OutlierColumns> read_outliers(const TensorSource& source,
                                                    const std::string& module,
                                                    const QTensor& weight) {
  const StoredTensor index = typed_tensor(source, module + ".ind", "I32");
  const StoredTensor cache = typed_tensor(source, module + ".weight_cache", kFloatTypes);
  LOWBIT_CHECK_KIND(index.shape.size() == 1, ErrorKind::kCorruptFile, index.name, " has shape ",
                    shape_text(index.shape), ", must be a list");
  const int64_t count = index.shape[0];
  LOWBIT_CHECK_KIND(count <= weight.cols, ErrorKind::kCorruptFile, index.name, " names ", count,
                    " outlier columns of ", weight.cols);
  expect_shape(cache, {weight.rows, count});
  if (count == 0) return nullptr;
  auto outliers = std::make_shared<OutlierColumns>();
  outliers->columns = int32s_of(index);
  QTensor& values = outliers->weight;
  values.scheme = dense_scheme(cache.dtype == "F16"    ? Code::kF16
                               : cache.dtype == "BF16" ? Code::kBF16
                                                       : Code::kF32);
  values.rows = weight.rows;
  values.cols = count;
  values.codes = cache.bytes;
  return outliers;
}

// Two's complement to and from an offset of half the range.
Bytes flipped(const QTensor& weight) {
  std::vector<uint8_t> codes(weight.codes.data, weight.codes.data + weight.codes.size);
  for (uint8_t& code : codes) code ^= weight.scheme.bits == 8 ? 0x80 : 0x88;
  return Bytes::own(std::move(codes));
}

QTensor read(const TensorSource& source, const Json& config, const std::string& module) {
  if (!has_weight(source, module)) {
    QTensor weight = copy_of(source, config, module, true);
    if (source.contains(module + ".weight_cache")) {
      weight.outliers = read_outliers(source, module, weight);
    }
    validate(weight, module);
    return weight;
  }
  QTensor weight = outline(source, config, module);
  weight.codes = flipped(weight);
  const StoredTensor scale = typed_tensor(source, module + ".scale_col", kFloatTypes);
  if (scale.shape.size() == 1) {
    expect_shape(scale, {weight.rows});
  } else {
    expect_shape(scale, {1, weight.rows});
  }
  weight.scales = floats_of(scale);
  weight.outliers = read_outliers(source, module, weight);
  validate(weight, module);  // columns in range, none twice
  return weight;
}

std::vector<StoredTensor> write(const std::string& module, const QTensor& weight) {
  const QuantScheme& scheme = weight.scheme;
  QuantScheme possible = int_scheme(scheme.bits, weight.cols);
  possible.input_bits = scheme.input_bits;
  const bool inputs = scheme.input_bits == 0 || scheme.input_bits == 8 ||
                      (scheme.input_bits == 4 && scheme.bits == 4);
  LOWBIT_CHECK((scheme.bits == 8 || scheme.bits == 4) && scheme == possible && inputs &&
                   weight.input_order.empty() && weight.cols * scheme.bits % 8 == 0,
               module, ": mixq holds symmetric codes of 8 or 4 bits with one scale a row, inputs ",
               "of as many bits or of 8, and an even number of columns, not ", name_of(scheme),
               " of ", weight.cols, " columns");
  const bool outliers = weight.outliers != nullptr;
  LOWBIT_CHECK(!outliers || weight.outliers->weight.scheme.code == Code::kF16, module,
               ": mixq holds outlier columns in fp16");
  const int64_t count = outliers ? weight.outliers->weight.cols : 0;
  return {{module + ".weight",
           scheme.bits == 8 ? "I8" : "U8",
           {weight.rows, weight.row_bytes()},
           flipped(weight)},
          stored_halfs(module + ".scale_col", {1, weight.rows}, weight.scales),
          stored_int32s(module + ".ind", {count},
                        outliers ? weight.outliers->columns : std::vector<int32_t>()),
          {module + ".weight_cache",
           "F16",
           {weight.rows, count},
           outliers ? weight.outliers->weight.codes : Bytes()}};
}

std::vector<StoredTensor> write_with_copy(const std::string& module, const QTensor& weight) {
  std::vector<StoredTensor> tensors = write(module, weight);
  for (StoredTensor& tensor : write_mixq_copy(module, weight)) {
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

Json write_config(const QuantScheme& scheme, const std::vector<std::string>& skipped) {
  return {{"quant_method", "mixq"},
          {"version", "MIX"},
          {"w_bit", scheme.bits},
          {"a_bit", scheme.input_bits == 0 ? kWholeInputs : scheme.input_bits},
          {"q_group_size", 128},
          {"modules_to_not_convert", skipped}};
}

}  // namespace

const CheckpointFormat kMixqFormat = {
    .name = "mixq",
    .detect = detect,
    .quantized = quantized,
    .read = read,
    .write = write,
    .quantization_config = write_config,
    .describe = outline,
    .says_input_bits = true,
};

const CheckpointFormat kMixqGpuFormat = {
    .name = "mixq-gpu",
    .detect = detect_never,
    .quantized = quantized,
    .read = read,
    .write = write_with_copy,
    .quantization_config = write_config,
    .describe = outline,
    .says_input_bits = true,
};

}  // namespace lowbit

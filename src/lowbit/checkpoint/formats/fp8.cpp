#include "lowbit/checkpoint/formats/fp8.h"

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/formats/fields.h"

namespace lowbit {

namespace {

constexpr const char* kConfig = "quantization_config";
constexpr const char* kScaleTypes = "F32 BF16 F16";

bool detect(const Json& config) {
  return has_method(config, "fp8") || has_method(config, "fbgemm_fp8");
}

bool quantized(const TensorSource& source, const std::string& module) {
  return source.contains(module + ".weight_scale_inv") || source.contains(module + ".weight_scale");
}

struct Block {
  int64_t rows = 128;
  int64_t cols = 128;
};

Block block_of(const Json& config) {
  const auto it = config.find("weight_block_size");
  if (it == config.end() || it->is_null()) return {};
  LOWBIT_CHECK_KIND(it->is_array() && it->size() == 2, ErrorKind::kCorruptFile, kConfig,
                    ": weight_block_size must be two numbers");
  return {block_extent((*it)[0], kConfig), block_extent((*it)[1], kConfig)};
}

QTensor read(const TensorSource& source, const Json& config, const std::string& module) {
  const StoredTensor codes = typed_tensor(source, module + ".weight", "F8_E4M3");
  const std::string inverse = module + ".weight_scale_inv";
  const std::string name = source.contains(inverse) ? inverse : module + ".weight_scale";
  const Block block = block_of(config);
  QTensor weight =
      fp8_weight(codes, typed_tensor(source, name, kScaleTypes), block.rows, block.cols);
  validate(weight, module);
  return weight;
}

std::vector<StoredTensor> write(const std::string& module, const QTensor& weight) {
  const QuantScheme& scheme = weight.scheme;
  const bool whole = scheme.group_rows >= weight.rows && scheme.group_size >= weight.cols;
  const bool blocks = scheme.group_rows > 1 && scheme.group_size > 1;
  LOWBIT_CHECK(scheme.code == Code::kE4M3 && scheme.scale_form == ScaleForm::kFloat &&
                   (whole || blocks) && weight.input_order.empty(),
               module, ": fp8 holds 8-bit floats with a scale for the tensor or for blocks, not ",
               name_of(scheme), "; compressed-tensors also holds one scale a row");
  StoredTensor codes{module + ".weight", "F8_E4M3", {weight.rows, weight.cols}, weight.codes};
  if (whole) return {codes, stored_floats(module + ".weight_scale", {}, weight.scales)};
  return {codes, stored_floats(module + ".weight_scale_inv", {weight.scale_rows(), weight.groups()},
                               weight.scales)};
}

Json write_config(const QuantScheme& scheme, const std::vector<std::string>& skipped) {
  const bool whole = scheme.group_size == 0;
  const Json blocks = Json::array({scheme.group_rows, scheme.group_size});
  return {{"quant_method", "fp8"},
          {"fmt", "e4m3"},
          {"activation_scheme", "dynamic"},
          {"weight_block_size", whole ? Json() : blocks},
          {"modules_to_not_convert", skipped},
          {"ignored_layers", skipped}};
}

}  // namespace

int64_t block_extent(const Json& number, const std::string& origin) {
  const int64_t extent = number.is_number_integer() ? number.get<int64_t>() : 0;
  LOWBIT_CHECK_KIND(extent > 0 && extent <= limits::kDimension, ErrorKind::kCorruptFile, origin,
                    ": blocks of ", dump_json(number).substr(0, 32), " are not possible");
  return extent;
}

QTensor fp8_weight(const StoredTensor& codes, const StoredTensor& scale, int64_t block_rows,
                   int64_t block_cols) {
  LOWBIT_CHECK_KIND(codes.shape.size() == 2, ErrorKind::kCorruptFile, codes.name, " has shape ",
                    shape_text(codes.shape), ", must be a matrix");
  QTensor weight;
  weight.rows = codes.shape[0];
  weight.cols = codes.shape[1];
  expect_extents(codes.name, weight.rows, weight.cols);
  const std::vector<int64_t> blocks = {(weight.rows + block_rows - 1) / block_rows,
                                       (weight.cols + block_cols - 1) / block_cols};
  if (scale.shape.empty() || scale.shape == std::vector<int64_t>{1}) {
    weight.scheme = fp8_scheme(static_cast<int>(weight.rows), weight.cols);
  } else if (scale.shape == std::vector<int64_t>{weight.rows, 1} ||
             scale.shape == std::vector<int64_t>{weight.rows}) {
    weight.scheme = fp8_scheme(1, weight.cols);
  } else {
    LOWBIT_CHECK_KIND(scale.shape == blocks, ErrorKind::kCorruptFile, scale.name, " has shape ",
                      shape_text(scale.shape), ", must be [1], [", weight.rows, ", 1] or ",
                      shape_text(blocks), " for blocks of ", block_rows, " x ", block_cols);
    weight.scheme = fp8_scheme(static_cast<int>(block_rows), block_cols);
  }
  weight.scales = floats_of(scale);
  weight.codes = codes.bytes;
  return weight;
}

const CheckpointFormat kFp8Format = {"fp8", detect, quantized, read, write, write_config};

}  // namespace lowbit

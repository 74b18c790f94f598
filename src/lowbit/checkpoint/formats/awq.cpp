#include "lowbit/checkpoint/formats/awq.h"

#include <algorithm>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/fields.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr const char* kConfig = "quantization_config";
constexpr int kShiftOfRow[8] = {0, 16, 4, 20, 8, 24, 12, 28};  // row 8c + i in word c
constexpr int kMiddle = 8;

bool detect(const Json& config) { return has_method(config, "awq"); }

bool quantized(const TensorSource& source, const std::string& module) {
  return source.contains(module + ".qweight");
}

void check_supported(const Json& config, const std::string& module) {
  const std::string version = lower_case(json_string(config, "version", "gemm", kConfig));
  const std::string backend = lower_case(json_string(config, "backend", "autoawq", kConfig));
  LOWBIT_CHECK_KIND(
      version != "gemv" && version != "gemv_fast" && version != "marlin" && backend != "llm-awq",
      ErrorKind::kUnsupported, module, ": AWQ checkpoint of version \"", version, "\", backend \"",
      backend, "\"; lowbit reads version gemm, convert it with AutoAWQ");
  const char* key = config.contains("bits") ? "bits" : "w_bit";
  const int64_t bits = json_int(config, key, 4, kConfig);
  LOWBIT_CHECK_KIND(bits == 4, ErrorKind::kUnsupported, module, ": AWQ checkpoint of ", bits,
                    " bits; the format has 4 only");
}

struct Stored {
  StoredTensor qweight, scales;
  int64_t rows = 0, cols = 0, groups = 0, group_size = 0;
};

Stored open_module(const TensorSource& source, const Json& config, const std::string& module) {
  check_supported(config, module);
  Stored stored;
  stored.qweight = typed_tensor(source, module + ".qweight", "I32");
  stored.scales = typed_tensor(source, module + ".scales", "F16 BF16 F32");
  for (const StoredTensor* tensor : {&stored.qweight, &stored.scales}) {
    LOWBIT_CHECK_KIND(tensor->shape.size() == 2 && tensor->shape[0] > 0 && tensor->shape[1] > 0,
                      ErrorKind::kCorruptFile, tensor->name, " has shape ",
                      shape_text(tensor->shape));
  }
  stored.cols = stored.qweight.shape[0];
  stored.rows = stored.scales.shape[1];
  stored.groups = stored.scales.shape[0];
  expect_extents(module, stored.rows, stored.cols);
  LOWBIT_CHECK_KIND(stored.rows % 8 == 0, ErrorKind::kCorruptFile, stored.scales.name, " has ",
                    stored.rows, " rows, must be a multiple of 8");
  expect_shape(stored.qweight, {stored.cols, stored.rows / 8});
  const char* key = config.contains("group_size") ? "group_size" : "q_group_size";
  const int64_t stated = json_int(config, key, 128, kConfig);
  stored.group_size = stated == -1 || stated > stored.cols ? stored.cols : stated;
  LOWBIT_CHECK_KIND(stored.group_size > 0 &&
                        (stored.cols + stored.group_size - 1) / stored.group_size == stored.groups,
                    ErrorKind::kCorruptFile, module, ": ", stored.groups, " groups for ",
                    stored.cols, " columns, but quantization_config says group_size ", stated);
  return stored;
}

QTensor outline(const TensorSource& source, const Stored& stored, const std::string& module) {
  QTensor weight;
  weight.scheme = int_scheme(4, stored.group_size, Zero::kInt);
  weight.rows = stored.rows;
  weight.cols = stored.cols;
  weight.zeros.assign(static_cast<size_t>(stored.rows * stored.groups), kMiddle);
  if (source.contains(module + ".qzeros")) {
    const StoredTensor qzeros = typed_tensor(source, module + ".qzeros", "I32");
    expect_shape(qzeros, {stored.groups, stored.rows / 8});
    const std::vector<int32_t> words = int32s_of(qzeros);
    for (int64_t g = 0; g < stored.groups; ++g) {
      for (int64_t n = 0; n < stored.rows; ++n) {
        const auto word = static_cast<uint32_t>(words[g * (stored.rows / 8) + n / 8]);
        weight.zeros[n * stored.groups + g] = static_cast<uint8_t>(word >> kShiftOfRow[n % 8] & 15);
      }
    }
  }
  const auto is_middle = [](uint8_t zero) { return zero == kMiddle; };
  if (std::all_of(weight.zeros.begin(), weight.zeros.end(), is_middle)) {
    weight.scheme.zero = Zero::kNone;
    weight.zeros.clear();
  }
  return weight;
}

QTensor describe(const TensorSource& source, const Json& config, const std::string& module) {
  return outline(source, open_module(source, config, module), module);
}

std::vector<uint8_t> read_codes(const Stored& stored, int64_t row_bytes) {
  const int64_t words = stored.rows / 8;
  std::vector<uint8_t> codes(static_cast<size_t>(stored.rows * row_bytes));
  for (int64_t c = 0; c < words; ++c) {
    uint8_t* out = codes.data() + c * 8 * row_bytes;
    for (int64_t k = 0; k < stored.cols; ++k) {
      uint32_t word;
      std::memcpy(&word, stored.qweight.bytes.data + (k * words + c) * 4, 4);
      for (int i = 0; i < 8; ++i) {
        const uint32_t code = word >> kShiftOfRow[i] & 15;
        out[i * row_bytes + k / 2] |= static_cast<uint8_t>(code << (k % 2 * 4));
      }
    }
  }
  return codes;
}

QTensor read(const TensorSource& source, const Json& config, const std::string& module) {
  const Stored stored = open_module(source, config, module);
  QTensor weight = outline(source, stored, module);
  const std::vector<float> scales = floats_of(stored.scales);
  weight.scales.resize(scales.size());
  for (int64_t g = 0; g < stored.groups; ++g) {
    for (int64_t n = 0; n < stored.rows; ++n) {
      weight.scales[n * stored.groups + g] = scales[g * stored.rows + n];
    }
  }
  weight.codes = Bytes::own(read_codes(stored, weight.row_bytes()));
  validate(weight, module);
  return weight;
}

void check_writable(const std::string& module, const QTensor& weight) {
  const QuantScheme& scheme = weight.scheme;
  LOWBIT_CHECK(scheme.code == Code::kInt && scheme.bits == 4 && scheme.group_rows == 1 &&
                   scheme.zero != Zero::kOffset,
               module, ": awq holds integer codes of 4 bits, not ", name_of(scheme));
  LOWBIT_CHECK(weight.input_order.empty(), module, ": awq cannot hold a column order; gptq can");
  LOWBIT_CHECK(weight.rows % 8 == 0 && weight.cols % scheme.group_size == 0, module,
               ": awq needs rows in multiples of 8 and columns in whole groups of ",
               scheme.group_size, ", not ", weight.rows, " x ", weight.cols);
}

std::vector<StoredTensor> write(const std::string& module, const QTensor& weight) {
  check_writable(module, weight);
  const int64_t rows = weight.rows, cols = weight.cols, groups = weight.groups();
  const int64_t words = rows / 8;
  std::vector<uint32_t> qweight(static_cast<size_t>(cols * words));
  std::vector<uint32_t> qzeros(static_cast<size_t>(groups * words));
  std::vector<float> scales(static_cast<size_t>(groups * rows));
  for (int64_t n = 0; n < rows; ++n) {
    const uint8_t* codes = weight.codes.data + n * weight.row_bytes();
    const int shift = kShiftOfRow[n % 8];
    for (int64_t k = 0; k < cols; ++k) qweight[k * words + n / 8] |= unpack(codes, k, 4) << shift;
    for (int64_t g = 0; g < groups; ++g) {
      const uint32_t zero = weight.zeros.empty() ? kMiddle : weight.zeros[n * groups + g];
      qzeros[g * words + n / 8] |= zero << shift;
      scales[g * rows + n] = weight.scales[n * groups + g];
    }
  }
  const auto as_ints = [](const std::vector<uint32_t>& values) {
    return std::vector<int32_t>(values.begin(), values.end());
  };
  return {stored_int32s(module + ".qweight", {cols, words}, as_ints(qweight)),
          stored_int32s(module + ".qzeros", {groups, words}, as_ints(qzeros)),
          stored_halfs(module + ".scales", {groups, rows}, scales)};
}

Json write_config(const QuantScheme& scheme, const std::vector<std::string>& skipped) {
  // AutoAWQ's kernels want zeros whatever they are, so zero_point stays true.
  return {{"quant_method", "awq"},
          {"bits", 4},
          {"group_size", scheme.group_size > 0 ? scheme.group_size : -1},
          {"zero_point", true},
          {"version", "gemm"},
          {"backend", "autoawq"},
          {"modules_to_not_convert", skipped.empty() ? Json() : Json(skipped)}};
}

}  // namespace

const CheckpointFormat kAwqFormat = {"awq", detect, quantized, read, write, write_config, describe};

}  // namespace lowbit

#include "lowbit/checkpoint/formats/aqlm.h"

#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/formats/fields.h"

namespace lowbit {

namespace {

constexpr const char* kConfig = "quantization_config";
constexpr const char* kFloatTypes = "F16 BF16 F32";

bool detect(const Json& config) { return has_method(config, "aqlm"); }

bool quantized(const TensorSource& source, const std::string& module) {
  return source.contains(module + ".codes") || source.contains(module + ".codebooks");
}

int64_t stated(const Json& config, const char* key, int64_t fallback, int64_t most) {
  const int64_t value = json_int(config, key, fallback, kConfig);
  LOWBIT_CHECK_KIND(value >= 1 && value <= most, ErrorKind::kUnsupported, kConfig, ": ", key,
                    " is ", value, "; AQLM is read with 1 to ", most);
  return value;
}

// A module's tensors, held against the config and each other.
struct Stored {
  StoredTensor codes, codebooks, scales;
  QTensor weight;  // scheme and shape
};

Stored open_module(const TensorSource& source, const Json& config, const std::string& module) {
  const int64_t count = stated(config, "num_codebooks", 1, limits::kCodebooks);
  const int64_t bits = stated(config, "nbits_per_codebook", 16, limits::kCodebookBits);
  const int64_t rows = stated(config, "out_group_size", 1, limits::kCodebookVector);
  const int64_t cols = stated(config, "in_group_size", 8, limits::kCodebookVector);
  Stored stored;
  stored.codes = typed_tensor(source, module + ".codes", "I8 I16 I32");
  const std::vector<int64_t>& shape = stored.codes.shape;
  LOWBIT_CHECK_KIND(shape.size() == 3 && shape[2] == count, ErrorKind::kCorruptFile,
                    stored.codes.name, " has shape ", shape_text(shape), ", must be [any, any, ",
                    count, "]");
  expect_extents(stored.codes.name, shape[0], shape[1]);
  const int64_t width = stored.codes.dtype == "I8" ? 8 : stored.codes.dtype == "I16" ? 16 : 32;
  LOWBIT_CHECK_KIND(bits <= width, ErrorKind::kCorruptFile, stored.codes.name, " holds ",
                    stored.codes.dtype, ", but codes have ", bits, " bits");
  expect_extents(stored.codes.name, shape[0] * rows, shape[1] * cols);
  stored.codebooks = typed_tensor(source, module + ".codebooks", kFloatTypes);
  expect_shape(stored.codebooks, {count, int64_t{1} << bits, rows, cols});
  stored.scales = typed_tensor(source, module + ".scales", kFloatTypes);
  expect_shape(stored.scales, {shape[0], 1, 1, 1});
  stored.weight.rows = shape[0] * rows;
  stored.weight.cols = shape[1] * cols;
  stored.weight.scheme =
      additive_scheme(static_cast<int>(count), static_cast<int>(bits), static_cast<int>(rows),
                      static_cast<int>(cols), stored.weight.cols);
  return stored;
}

// Codes as a bit stream of each row. Where a field has as many bits as its integer they are one
// already.
Bytes packed_codes(const Stored& stored) {
  const StoredTensor& tensor = stored.codes;
  const QTensor& weight = stored.weight;
  const int bits = weight.scheme.bits;
  const int bytes = tensor.dtype == "I8" ? 1 : tensor.dtype == "I16" ? 2 : 4;
  if (bits == bytes * 8) return tensor.bytes;
  const int64_t fields = weight.cols / weight.scheme.vector_cols * weight.scheme.codebooks;
  std::vector<uint8_t> packed(static_cast<size_t>(weight.code_rows() * weight.row_bytes()));
  for (int64_t n = 0; n < weight.code_rows(); ++n) {
    uint8_t* row = packed.data() + n * weight.row_bytes();
    for (int64_t i = 0; i < fields; ++i) {
      uint32_t field = 0;
      std::memcpy(&field, tensor.bytes.data + (n * fields + i) * bytes, bytes);
      field &= (uint32_t{1} << bits) - 1;
      for (int64_t bit = i * bits; field != 0; ++bit, field >>= 1) {
        row[bit / 8] = static_cast<uint8_t>(row[bit / 8] | (field & 1) << bit % 8);
      }
    }
  }
  return Bytes::own(std::move(packed));
}

std::shared_ptr<const QTensor> vectors_of(const Stored& stored) {
  const StoredTensor& tensor = stored.codebooks;
  auto vectors = std::make_shared<QTensor>();
  vectors->scheme = dense_scheme(tensor.dtype == "F16"    ? Code::kF16
                                 : tensor.dtype == "BF16" ? Code::kBF16
                                                          : Code::kF32);
  vectors->rows = tensor.shape[0] * tensor.shape[1];
  vectors->cols = tensor.shape[2] * tensor.shape[3];
  vectors->codes = tensor.bytes;
  return vectors;
}

QTensor read(const TensorSource& source, const Json& config, const std::string& module) {
  Stored stored = open_module(source, config, module);
  QTensor& weight = stored.weight;
  weight.codes = packed_codes(stored);
  weight.codebooks = vectors_of(stored);
  weight.scales = floats_of(stored.scales);
  validate(weight, module);
  return std::move(weight);
}

QTensor describe(const TensorSource& source, const Json& config, const std::string& module) {
  return open_module(source, config, module).weight;
}

}  // namespace

const CheckpointFormat kAqlmFormat = {
    .name = "aqlm",
    .detect = detect,
    .quantized = quantized,
    .read = read,
    .write = nullptr,
    .quantization_config = nullptr,
    .describe = describe,
};

}  // namespace lowbit

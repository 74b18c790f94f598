#include "lowbit/checkpoint/formats/fields.h"

#include <algorithm>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

template <typename T>
std::vector<T> values_of(const StoredTensor& tensor) {
  std::vector<T> values(tensor.bytes.size / sizeof(T));
  std::copy_n(tensor.bytes.data, values.size() * sizeof(T),
              reinterpret_cast<uint8_t*>(values.data()));
  return values;
}

template <typename T>
Bytes bytes_of(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  std::copy_n(reinterpret_cast<const uint8_t*>(values.data()), bytes.size(), bytes.data());
  return Bytes::own(std::move(bytes));
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t extent : shape) text += concat(text.size() > 1 ? ", " : "", extent);
  return text + "]";
}

StoredTensor typed_tensor(const TensorSource& source, const std::string& name,
                          const std::string& dtypes) {
  LOWBIT_CHECK_KIND(source.contains(name), ErrorKind::kCorruptFile, name, " is missing");
  StoredTensor tensor = source.tensor(name);
  LOWBIT_CHECK_KIND((" " + dtypes + " ").find(" " + tensor.dtype + " ") != std::string::npos,
                    ErrorKind::kCorruptFile, name, " is ", tensor.dtype, ", must be ", dtypes);
  uint64_t bytes = static_cast<uint64_t>(safetensors_bits(tensor.dtype)) / 8;
  bool fits = bytes > 0;
  for (const int64_t extent : tensor.shape) {
    fits = fits && extent >= 0 &&
           !__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes);
  }
  LOWBIT_CHECK_KIND(fits && bytes == tensor.bytes.size, ErrorKind::kCorruptFile, name, " holds ",
                    tensor.bytes.size, " bytes, not ", shape_text(tensor.shape), " of ",
                    tensor.dtype);
  return tensor;
}

void expect_shape(const StoredTensor& tensor, const std::vector<int64_t>& shape) {
  LOWBIT_CHECK_KIND(tensor.shape == shape, ErrorKind::kCorruptFile, tensor.name, " has shape ",
                    shape_text(tensor.shape), ", must be ", shape_text(shape));
}

std::vector<float> floats_of(const StoredTensor& tensor) {
  if (tensor.dtype == "F32") return values_of<float>(tensor);
  const std::vector<uint16_t> halfs = values_of<uint16_t>(tensor);
  std::vector<float> values(halfs.size());
  std::transform(halfs.begin(), halfs.end(), values.begin(),
                 tensor.dtype == "F16" ? f16_to_f32 : bf16_to_f32);
  return values;
}

std::vector<int32_t> int32s_of(const StoredTensor& tensor) { return values_of<int32_t>(tensor); }
std::vector<int64_t> int64s_of(const StoredTensor& tensor) { return values_of<int64_t>(tensor); }

StoredTensor stored_int32s(std::string name, std::vector<int64_t> shape,
                           const std::vector<int32_t>& values) {
  return {std::move(name), "I32", std::move(shape), bytes_of(values)};
}

StoredTensor stored_halfs(std::string name, std::vector<int64_t> shape,
                          const std::vector<float>& values) {
  std::vector<uint16_t> halfs(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    halfs[i] = f32_to_f16(values[i]);
    LOWBIT_CHECK(f16_to_f32(halfs[i]) == values[i], name, ": the format stores fp16, which cannot ",
                 "hold ", values[i]);
  }
  return {std::move(name), "F16", std::move(shape), bytes_of(halfs)};
}

StoredTensor stored_floats(std::string name, std::vector<int64_t> shape,
                           const std::vector<float>& values) {
  return {std::move(name), "F32", std::move(shape), bytes_of(values)};
}

StoredTensor stored_bytes(std::string name, std::string dtype, std::vector<int64_t> shape,
                          std::vector<uint8_t> bytes) {
  return {std::move(name), std::move(dtype), std::move(shape), Bytes::own(std::move(bytes))};
}

std::vector<uint8_t> bytes_of(const StoredTensor& tensor) {
  return {tensor.bytes.data, tensor.bytes.data + tensor.bytes.size};
}

std::string lower_case(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

bool has_method(const Json& config, const std::string& method) {
  if (!config.is_object()) return false;
  const auto it = config.find("quant_method");
  return it != config.end() && it->is_string() && lower_case(it->get<std::string>()) == method;
}

void expect_extents(const std::string& name, int64_t rows, int64_t cols) {
  LOWBIT_CHECK_KIND(
      rows > 0 && rows <= limits::kVocabSize && cols > 0 && cols <= limits::kDimension,
      ErrorKind::kCorruptFile, name, " says ", rows, " x ", cols);
}

std::vector<int32_t> order_of_groups(const std::vector<int32_t>& index, int64_t group_size,
                                     const std::string& name) {
  const auto cols = static_cast<int64_t>(index.size());
  const int64_t groups = (cols + group_size - 1) / group_size;
  bool natural = true, empty = true;
  for (int64_t k = 0; k < cols; ++k) {
    LOWBIT_CHECK_KIND(index[k] >= 0 && index[k] < groups, ErrorKind::kCorruptFile, name,
                      ": column ", k, " is in group ", index[k], " of ", groups);
    natural = natural && index[k] == k / group_size;
    empty = empty && index[k] == 0;
  }
  if (natural || empty) return {};
  std::vector<int32_t> order(index.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return index[a] < index[b]; });
  for (int64_t k = 0; k < cols; ++k) {
    LOWBIT_CHECK_KIND(index[order[k]] == k / group_size, ErrorKind::kUnsupported, name, ": group ",
                      k / group_size, " does not have ", group_size, " columns");
  }
  return order;
}

std::vector<int32_t> group_of_columns(const QTensor& weight) {
  std::vector<int32_t> index(static_cast<size_t>(weight.cols));
  for (int64_t k = 0; k < weight.cols; ++k) {
    const int64_t input = weight.input_order.empty() ? k : weight.input_order[k];
    index[input] = static_cast<int32_t>(k / weight.scheme.group_size);
  }
  return index;
}

std::vector<uint8_t> gather_columns(const std::vector<uint8_t>& codes, int64_t rows, int64_t cols,
                                    int bits, const std::vector<int32_t>& order) {
  const int64_t row_bytes = packed_bytes(cols, bits);
  std::vector<uint8_t> gathered(codes.size());
  for (int64_t n = 0; n < rows; ++n) {
    const uint8_t* from = codes.data() + n * row_bytes;
    uint8_t* to = gathered.data() + n * row_bytes;
    for (int64_t k = 0; k < cols; ++k) pack(to, k, bits, unpack(from, order[k], bits));
  }
  return gathered;
}

std::vector<uint8_t> codes_by_input(const QTensor& weight) {
  std::vector<uint8_t> codes(weight.codes.data, weight.codes.data + weight.codes.size);
  if (weight.input_order.empty()) return codes;
  std::vector<int32_t> inverse(weight.input_order.size());
  for (size_t k = 0; k < inverse.size(); ++k) {
    inverse[weight.input_order[k]] = static_cast<int32_t>(k);
  }
  return gather_columns(codes, weight.rows, weight.cols, weight.scheme.bits, inverse);
}

}  // namespace lowbit

#include "lowbit/tensor/qtensor.h"

#include <cmath>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

std::string name_of(const QuantScheme& scheme) {
  std::string name;
  switch (scheme.code) {
    case Code::kF32:
      return "f32";
    case Code::kF16:
      return "f16";
    case Code::kBF16:
      return "bf16";
    case Code::kInt:
      name = concat("w", scheme.bits);
      break;
    case Code::kIq4Nl:
      name = "iq4nl";
      break;
  }
  name += concat("_g", scheme.group_size);
  if (scheme.zero == Zero::kInt) name += "_zero";
  if (scheme.zero == Zero::kOffset) name += "_offset";
  return name;
}

Bytes Bytes::own(std::vector<uint8_t> bytes) {
  auto owner = std::make_shared<std::vector<uint8_t>>(std::move(bytes));
  const uint8_t* data = owner->data();
  const size_t size = owner->size();
  return Bytes{std::move(owner), data, size};
}

int64_t QTensor::stored_bytes() const {
  const int64_t entries = scheme.dense() ? 0 : scale_rows() * groups();
  int64_t bytes = rows * row_bytes() + entries * 2;
  if (scheme.zero == Zero::kInt) bytes += packed_bytes(entries, scheme.bits);
  if (scheme.zero == Zero::kOffset) bytes += entries * 2;
  if (!input_order.empty()) bytes += cols * 4;
  return bytes;
}

void validate(const QTensor& weight, const std::string& name) {
  const QuantScheme& scheme = weight.scheme;
  const auto corrupt = [&](const auto&... parts) {
    fail(ErrorKind::kCorruptFile, name, ": ", parts...);
  };
  if (weight.rows <= 0 || weight.cols <= 0)
    corrupt("empty shape ", weight.rows, " x ", weight.cols);
  if (weight.codes.size != static_cast<size_t>(weight.rows * weight.row_bytes())) {
    corrupt("holds ", weight.codes.size, " bytes of codes, ", weight.rows, " x ", weight.cols, " ",
            name_of(scheme), " needs ", weight.rows * weight.row_bytes());
  }
  if (!scheme.dense()) {
    if (scheme.bits < 1 || scheme.bits > 8 || scheme.group_size <= 0 || scheme.group_rows <= 0) {
      corrupt("scheme ", name_of(scheme), " is not possible");
    }
    const size_t entries = static_cast<size_t>(weight.scale_rows() * weight.groups());
    if (weight.scales.size() != entries) corrupt(weight.scales.size(), " scales, need ", entries);
    if (scheme.zero == Zero::kInt && weight.zeros.size() != entries) {
      corrupt(weight.zeros.size(), " zeros, need ", entries);
    }
    if (scheme.zero == Zero::kOffset && weight.offsets.size() != entries) {
      corrupt(weight.offsets.size(), " offsets, need ", entries);
    }
    for (size_t i = 0; i < entries; ++i) {
      if (!std::isfinite(weight.scales[i])) corrupt("scale ", i, " is ", weight.scales[i]);
      if (scheme.zero == Zero::kOffset && !std::isfinite(weight.offsets[i])) {
        corrupt("offset ", i, " is ", weight.offsets[i]);
      }
    }
  }
  if (!weight.input_order.empty()) {
    std::vector<bool> seen(weight.cols, false);
    if (static_cast<int64_t>(weight.input_order.size()) != weight.cols) corrupt("input order size");
    for (const int32_t column : weight.input_order) {
      if (column < 0 || column >= weight.cols || seen[column]) {
        corrupt("input order is not a permutation (column ", column, ")");
      }
      seen[column] = true;
    }
  }
}

namespace {

float decode_dense(const QTensor& weight, int64_t row, int64_t col) {
  const uint8_t* at = weight.codes.data + row * weight.row_bytes();
  if (weight.scheme.code == Code::kF32) {
    float value;
    std::memcpy(&value, at + col * 4, 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, at + col * 2, 2);
  return weight.scheme.code == Code::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
}

float decode_code(const QTensor& weight, uint32_t code, int64_t entry) {
  const QuantScheme& scheme = weight.scheme;
  const float scale = weight.scales[entry];
  if (scheme.code == Code::kIq4Nl) return scale * static_cast<float>(kIq4NlTable[code]);
  switch (scheme.zero) {
    case Zero::kNone:
      return scale * static_cast<float>(static_cast<int>(code) - (1 << (scheme.bits - 1)));
    case Zero::kInt:
      return scale * static_cast<float>(static_cast<int>(code) - weight.zeros[entry]);
    case Zero::kOffset:
      return scale * static_cast<float>(code) + weight.offsets[entry];
  }
  return 0;
}

}  // namespace

void dequantize_row(const QTensor& weight, int64_t row, float* out) {
  const QuantScheme& scheme = weight.scheme;
  const uint8_t* codes = weight.codes.data + row * weight.row_bytes();
  const int64_t scale_row = row / scheme.group_rows * weight.groups();
  for (int64_t col = 0; col < weight.cols; ++col) {
    const float value = scheme.dense() ? decode_dense(weight, row, col)
                                       : decode_code(weight, unpack(codes, col, scheme.bits),
                                                     scale_row + col / scheme.group_size);
    out[weight.input_order.empty() ? col : weight.input_order[col]] = value;
  }
}

std::vector<float> dequantize(const QTensor& weight) {
  std::vector<float> out(static_cast<size_t>(weight.rows * weight.cols));
  for (int64_t row = 0; row < weight.rows; ++row) {
    dequantize_row(weight, row, out.data() + row * weight.cols);
  }
  return out;
}

QTensor dense_f32(std::vector<float> values, int64_t rows, int64_t cols) {
  auto owner = std::make_shared<std::vector<float>>(std::move(values));
  QTensor weight;
  weight.scheme = dense_scheme(Code::kF32);
  weight.rows = rows;
  weight.cols = cols;
  const auto* data = reinterpret_cast<const uint8_t*>(owner->data());
  const size_t size = owner->size() * sizeof(float);
  weight.codes = Bytes::view(std::move(owner), data, size);
  return weight;
}

}  // namespace lowbit

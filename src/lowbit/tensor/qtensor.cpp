#include "lowbit/tensor/qtensor.h"

#include <cmath>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

std::string code_name(const QuantScheme& scheme) {
  switch (scheme.code) {
    case Code::kF32:
      return "f32";
    case Code::kF16:
      return "f16";
    case Code::kBF16:
      return "bf16";
    case Code::kInt:
      return concat("w", scheme.bits);
    case Code::kIq4Nl:
      return "iq4nl";
    case Code::kNf4:
      return "nf4";
    case Code::kFp4:
      return "bnb_fp4";
    case Code::kE2M1:
      if (scheme.scale_form == ScaleForm::kE4M3) return "nvfp4";
      return scheme.scale_form == ScaleForm::kE8M0 ? "mxfp4" : "fp4";
    case Code::kE4M3:
      return scheme.scale_form == ScaleForm::kE8M0 ? "mxfp8" : "fp8";
  }
  return "?";
}

}  // namespace

std::string name_of(const QuantScheme& scheme) {
  std::string name = code_name(scheme);
  if (scheme.dense()) return name;
  name += concat("_g", scheme.group_size);
  if (scheme.group_rows != 1) name += concat("_r", scheme.group_rows);
  if (scheme.zero == Zero::kInt) name += "_zero";
  if (scheme.zero == Zero::kOffset) name += "_offset";
  if (scheme.scale_form == ScaleForm::kNested) name += "_nested";
  if (scheme.input_bits != 0) name += concat("_a", scheme.input_bits);
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
  const bool short_scales =
      scheme.scale_form == ScaleForm::kE8M0 || scheme.scale_form == ScaleForm::kE4M3;
  int64_t scale_bytes = entries * (short_scales ? 1 : 2);
  if (nested) scale_bytes = static_cast<int64_t>(nested->codes.size() + nested->absmax.size() * 4);
  int64_t bytes = rows * row_bytes() + scale_bytes;
  if (scheme.zero == Zero::kInt) bytes += packed_bytes(entries, scheme.bits);
  if (scheme.zero == Zero::kOffset) bytes += entries * 2;
  if (!input_order.empty()) bytes += cols * 4;
  if (outliers) bytes += outliers->weight.stored_bytes() + outliers->weight.cols * 4;
  return bytes;
}

namespace {

template <typename... Parts>
[[noreturn]] void corrupt(const std::string& name, const Parts&... parts) {
  fail(ErrorKind::kCorruptFile, name, ": ", parts...);
}

bool is_possible(const QuantScheme& scheme) {
  if (scheme.group_size <= 0 || scheme.group_rows <= 0) return false;
  if (scheme.input_bits != 0) {
    const int least = scheme.code == Code::kInt ? 2 : scheme.code == Code::kE4M3 ? 8 : 9;
    if (scheme.input_bits < least || scheme.input_bits > 8) return false;
  }
  if (scheme.code == Code::kInt) return scheme.bits >= 1 && scheme.bits <= 8;
  return scheme.zero == Zero::kNone && scheme.bits == (scheme.code == Code::kE4M3 ? 8 : 4);
}

void validate_scale_form(const QTensor& weight, const std::string& name) {
  switch (weight.scheme.scale_form) {
    case ScaleForm::kFloat:
      return;
    case ScaleForm::kE8M0:
      for (const float scale : weight.scales) {
        int exponent;
        if (std::frexp(scale, &exponent) != 0.5f) corrupt(name, "scale ", scale, " is no 2^n");
      }
      return;
    case ScaleForm::kE4M3:
      if (!std::isfinite(weight.global_scale) || weight.global_scale <= 0) {
        corrupt(name, "the scale of the whole tensor is ", weight.global_scale);
      }
      return;
    case ScaleForm::kNested: {
      if (!weight.nested) corrupt(name, "lacks the codes of its scales");
      const NestedScales& nested = *weight.nested;
      const auto codes = static_cast<int64_t>(nested.codes.size());
      if (nested.span <= 0 || nested.block <= 0 || nested.table.size() != 256 ||
          codes != (weight.rows * weight.cols + nested.span - 1) / nested.span ||
          static_cast<int64_t>(nested.absmax.size()) != (codes + nested.block - 1) / nested.block) {
        corrupt(name, "the codes of its scales do not fit its shape");
      }
      return;
    }
  }
}

void validate_scales(const QTensor& weight, const std::string& name) {
  const QuantScheme& scheme = weight.scheme;
  if (!is_possible(scheme)) corrupt(name, "scheme ", name_of(scheme), " is not possible");
  const size_t entries = static_cast<size_t>(weight.scale_rows() * weight.groups());
  if (weight.scales.size() != entries) {
    corrupt(name, weight.scales.size(), " scales, need ", entries);
  }
  if (scheme.zero == Zero::kInt && weight.zeros.size() != entries) {
    corrupt(name, weight.zeros.size(), " zeros, need ", entries);
  }
  if (scheme.zero == Zero::kOffset && weight.offsets.size() != entries) {
    corrupt(name, weight.offsets.size(), " offsets, need ", entries);
  }
  for (size_t i = 0; i < entries; ++i) {
    if (!std::isfinite(weight.scales[i])) corrupt(name, "scale ", i, " is ", weight.scales[i]);
    if (scheme.zero == Zero::kOffset && !std::isfinite(weight.offsets[i])) {
      corrupt(name, "offset ", i, " is ", weight.offsets[i]);
    }
  }
  validate_scale_form(weight, name);
}

void validate_order(const QTensor& weight, const std::string& name) {
  std::vector<bool> seen(weight.cols, false);
  if (static_cast<int64_t>(weight.input_order.size()) != weight.cols) {
    corrupt(name, "input order has ", weight.input_order.size(), " columns of ", weight.cols);
  }
  for (const int32_t column : weight.input_order) {
    if (column < 0 || column >= weight.cols || seen[column]) {
      corrupt(name, "input order is not a permutation (column ", column, ")");
    }
    seen[column] = true;
  }
}

void validate_outliers(const QTensor& weight, const std::string& name) {
  const std::vector<int32_t>& columns = weight.outliers->columns;
  const QTensor& values = weight.outliers->weight;
  if (columns.empty() || !weight.input_order.empty() || weight.scheme.dense()) {
    corrupt(name, "outlier columns are not possible here");
  }
  std::vector<bool> seen(weight.cols, false);
  for (const int32_t column : columns) {
    if (column < 0 || column >= weight.cols) {
      corrupt(name, "outlier column ", column, " is not one of ", weight.cols);
    }
    if (seen[column]) corrupt(name, "outlier column ", column, " is there twice");
    seen[column] = true;
  }
  if (!values.scheme.dense() || values.outliers || values.rows != weight.rows ||
      values.cols != static_cast<int64_t>(columns.size())) {
    corrupt(name, "the weights of ", columns.size(), " outlier columns are ", values.rows, " x ",
            values.cols, " ", name_of(values.scheme));
  }
  validate(values, name);
  std::vector<float> row(columns.size());
  for (int64_t n = 0; n < values.rows; ++n) {
    dequantize_row(values, n, row.data());
    for (size_t j = 0; j < row.size(); ++j) {
      if (!std::isfinite(row[j])) {
        corrupt(name, "row ", n, " of outlier column ", columns[j], " is ", row[j]);
      }
    }
  }
}

}  // namespace

void validate(const QTensor& weight, const std::string& name) {
  const QuantScheme& scheme = weight.scheme;
  if (weight.rows <= 0 || weight.cols <= 0) {
    corrupt(name, "empty shape ", weight.rows, " x ", weight.cols);
  }
  if (weight.codes.size != static_cast<size_t>(weight.rows * weight.row_bytes())) {
    corrupt(name, "holds ", weight.codes.size, " bytes of codes, ", weight.rows, " x ", weight.cols,
            " ", name_of(scheme), " needs ", weight.rows * weight.row_bytes());
  }
  if (!scheme.dense()) validate_scales(weight, name);
  if (scheme.code == Code::kE4M3) {
    for (size_t i = 0; i < weight.codes.size; ++i) {
      if ((weight.codes.data[i] & 0x7f) == 0x7f) corrupt(name, "weight ", i, " is NaN");
    }
  }
  if (!weight.input_order.empty()) validate_order(weight, name);
  if (weight.outliers) validate_outliers(weight, name);
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

float decode_int(const QTensor& weight, uint32_t code, int64_t entry) {
  const QuantScheme& scheme = weight.scheme;
  const float scale = weight.scales[entry];
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

float decode_code(const QTensor& weight, uint32_t code, int64_t entry) {
  const float scale = weight.scales[entry];
  switch (weight.scheme.code) {
    case Code::kF32:
    case Code::kF16:
    case Code::kBF16:
      break;  // decode_dense
    case Code::kInt:
      return decode_int(weight, code, entry);
    case Code::kIq4Nl:
      return scale * static_cast<float>(kIq4NlTable[code]);
    case Code::kNf4:
      return scale * kNf4Table[code];
    case Code::kFp4:
      return scale * kFp4Table[code];
    case Code::kE2M1:
      return scale * kE2M1Table[code];
    case Code::kE4M3:
      return scale * e4m3_to_f32(static_cast<uint8_t>(code));
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
  if (!weight.outliers) return;
  const OutlierColumns& outliers = *weight.outliers;
  for (size_t j = 0; j < outliers.columns.size(); ++j) {
    out[outliers.columns[j]] = decode_dense(outliers.weight, row, static_cast<int64_t>(j));
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

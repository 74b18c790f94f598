#include "lowbit/checkpoint/formats/mixq_copy.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/fields.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr const char* kFloatTypes = "F16 BF16 F32";
constexpr int64_t kTile = 64;                                // rows and columns of the mixed GEMM
constexpr int kColumnOfField[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // 4 bits

// Where the mixed GEMM wants element [n][k] of a matrix with `cols` columns. Of 16 columns each
// pair moves to where a tensor core's thread reads it; two rows alternate by 64 columns; the middle
// bytes of every four change places.
int64_t place_of(int64_t n, int64_t k, int64_t cols) {
  const int64_t of16 = k % 16;
  const int64_t moved = k - of16 + of16 % 8 / 2 * 4 + of16 / 8 * 2 + of16 % 2;
  constexpr int kByte[4] = {0, 2, 1, 3};
  const int64_t in_pair =
      moved / kTile * 2 * kTile + n % 2 * kTile + moved % kTile / 4 * 4 + kByte[moved % 4];
  return n / 2 * 2 * cols + in_pair;
}

enum class Layout { kMixedGemm, kNibbles, kRows, kPackedRows };

struct Stored {
  StoredTensor codes, scales;
  Layout layout = Layout::kRows;
  QTensor weight;
};

StoredTensor scales_of(const TensorSource& source, const std::string& module) {
  const std::string own = module + ".q_scale_col";
  return typed_tensor(source, source.contains(own) ? own : module + ".scale_col", kFloatTypes);
}

Stored open_copy(const TensorSource& source, const std::string& module,
                 const std::function<int(int bits)>& input_bits_of) {
  Stored stored;
  stored.codes = typed_tensor(source, module + ".q_weight", "I8 U8 I32");
  stored.scales = scales_of(source, module);
  const std::vector<int64_t>& shape = stored.codes.shape;
  LOWBIT_CHECK_KIND(shape.size() == 2, ErrorKind::kCorruptFile, stored.codes.name, " has shape ",
                    shape_text(shape), ", must be a matrix");
  expect_extents(stored.codes.name, shape[0], shape[1]);
  const std::string& type = stored.codes.dtype;
  const bool flat = stored.scales.shape.size() == 1;
  stored.layout = type == "I32"  ? Layout::kNibbles
                  : type == "U8" ? Layout::kPackedRows
                  : flat         ? Layout::kMixedGemm
                                 : Layout::kRows;
  QTensor& weight = stored.weight;
  const bool across = stored.layout == Layout::kMixedGemm;
  const int per_element = type == "I32" ? 8 : type == "U8" ? 2 : 1;
  weight.rows = across ? shape[1] : shape[0];
  weight.cols = across ? shape[0] : shape[1] * per_element;
  expect_extents(stored.codes.name, weight.rows, weight.cols);
  LOWBIT_CHECK_KIND(!across || (weight.rows % kTile == 0 && weight.cols % kTile == 0),
                    ErrorKind::kCorruptFile, stored.codes.name, " has shape ", shape_text(shape),
                    "; the layout of mixed GEMMs has multiples of ", kTile);
  if (flat) {
    expect_shape(stored.scales, {weight.rows});
  } else {
    expect_shape(stored.scales, {1, weight.rows});
  }
  const int bits = type == "I8" ? 8 : 4;
  weight.scheme = int_scheme(bits, weight.cols);
  const bool rounds = stored.layout == Layout::kRows || stored.layout == Layout::kPackedRows;
  weight.scheme.input_bits = rounds ? input_bits_of(bits) : 0;
  return stored;
}

std::vector<uint8_t> codes_of(const Stored& stored) {
  const QTensor& weight = stored.weight;
  const uint8_t* bytes = stored.codes.bytes.data;
  std::vector<uint8_t> codes(static_cast<size_t>(weight.rows * weight.row_bytes()));
  switch (stored.layout) {
    case Layout::kMixedGemm:
      for (int64_t n = 0; n < weight.rows; ++n) {
        for (int64_t k = 0; k < weight.cols; ++k) {
          codes[static_cast<size_t>(n * weight.cols + k)] = bytes[place_of(n, k, weight.cols)];
        }
      }
      break;
    case Layout::kNibbles:
      for (int64_t n = 0; n < weight.rows; ++n) {
        uint8_t* row = codes.data() + n * weight.row_bytes();
        for (int64_t k = 0; k < weight.cols; k += 8) {
          for (int field = 0; field < 8; ++field) {
            const uint32_t code = unpack(bytes, n * weight.cols + k + field, 4);
            pack(row, k + kColumnOfField[field], 4, code);
          }
        }
      }
      break;
    case Layout::kRows:
    case Layout::kPackedRows:
      std::copy_n(bytes, codes.size(), codes.begin());
      for (uint8_t& code : codes) code ^= weight.scheme.bits == 8 ? 0x80 : 0x88;
      break;
  }
  return codes;
}

// The codes with those of outlier columns at their nearest.
std::vector<uint8_t> whole_codes(const QTensor& weight) {
  std::vector<uint8_t> codes(weight.codes.data, weight.codes.data + weight.codes.size);
  if (!weight.outliers || weight.scheme.bits != 8) return codes;  // of 4 bits they stay 0
  std::vector<float> values(weight.outliers->columns.size());
  for (int64_t n = 0; n < weight.rows; ++n) {
    dequantize_row(weight.outliers->weight, n, values.data());
    for (size_t j = 0; j < values.size(); ++j) {
      const float code = std::nearbyint(values[j] / weight.scales[static_cast<size_t>(n)]);
      codes[static_cast<size_t>(n * weight.cols + weight.outliers->columns[j])] =
          static_cast<uint8_t>(static_cast<int>(std::clamp(code, -128.f, 127.f)) + 128);
    }
  }
  return codes;
}

}  // namespace

QTensor read_mixq_copy(const TensorSource& source, const std::string& module,
                       const std::function<int(int bits)>& input_bits_of, bool with_codes) {
  Stored stored = open_copy(source, module, input_bits_of);
  if (with_codes) {
    stored.weight.codes = Bytes::own(codes_of(stored));
    stored.weight.scales = floats_of(stored.scales);
  }
  return std::move(stored.weight);
}

std::vector<StoredTensor> write_mixq_copy(const std::string& module, const QTensor& weight) {
  const int64_t rows = weight.rows, cols = weight.cols;
  const bool eight = weight.scheme.bits == 8;
  LOWBIT_CHECK(
      eight ? rows % kTile == 0 && cols % kTile == 0 : cols % 8 == 0, module,
      ": mixq's kernels need multiples of 64 rows and columns for 8 bits, of 8 columns for ",
      "4 bits, not ", rows, " x ", cols, "; use --format mixq");
  const std::vector<uint8_t> codes = whole_codes(weight);
  std::vector<uint8_t> bytes(codes.size());
  if (eight) {
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t k = 0; k < cols; ++k) {
        bytes[static_cast<size_t>(place_of(n, k, cols))] = codes[static_cast<size_t>(n * cols + k)];
      }
    }
    return {stored_bytes(module + ".q_weight", "I8", {cols, rows}, std::move(bytes)),
            stored_halfs(module + ".q_scale_col", {rows}, weight.scales)};
  }
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t k = 0; k < cols; k += 8) {
      for (int field = 0; field < 8; ++field) {
        pack(bytes.data(), n * cols + k + field, 4,
             unpack(codes.data(), n * cols + k + kColumnOfField[field], 4));
      }
    }
  }
  return {stored_bytes(module + ".q_weight", "I32", {rows, cols / 8}, std::move(bytes)),
          stored_halfs(module + ".q_scale_col", {1, rows}, weight.scales)};
}

}  // namespace lowbit

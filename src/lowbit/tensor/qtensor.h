// QTensor: a weight matrix in canonical form, and dequantize(), which defines what it means.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/tensor/scheme.h"

namespace lowbit {

// Bytes with shared ownership: a heap block or a window into a mapped file.
struct Bytes {
  std::shared_ptr<const void> owner;
  const uint8_t* data = nullptr;
  size_t size = 0;

  static Bytes own(std::vector<uint8_t> bytes);
  static Bytes view(std::shared_ptr<const void> owner, const uint8_t* data, size_t size) {
    return Bytes{std::move(owner), data, size};
  }
};

// ScaleForm::kNested: how the scales are stored, kept to write them again exactly.
//   scale of codes[i] = table[codes[i]] * absmax[i / block] + offset
struct NestedScales {
  std::vector<uint8_t> codes;  // one for each `span` weights, in row-major order
  std::vector<float> absmax;   // [ceil(codes / block)]
  std::vector<float> table;    // [256]
  float offset = 0;
  int64_t block = 256;
  int64_t span = 64;

  float scale(int64_t code) const { return table[codes[code]] * absmax[code / block] + offset; }
};

struct OutlierColumns;

// Weight [rows][cols] of y = x * W^T: rows are outputs, cols are inputs. Every row of codes starts
// on a byte: row n is codes.data + n * row_bytes(). kAdditive, where v are the codes of a vector:
//   w[n][k] = scale[n / group_rows] * sum of codebook c's vector v[c] at (n, k), over all c
struct QTensor {
  QuantScheme scheme;
  int64_t rows = 0;
  int64_t cols = 0;
  Bytes codes;                 // [code_rows()][row_bytes()]
  std::vector<float> scales;   // [scale_rows()][groups()]; empty if dense
  std::vector<uint8_t> zeros;  // Zero::kInt: same shape as scales
  std::vector<float> offsets;  // Zero::kOffset: same shape as scales
  float global_scale = 1;      // ScaleForm::kE4M3: scales are e4m3 values divided by this
  std::shared_ptr<const NestedScales> nested;  // ScaleForm::kNested only
  std::vector<int32_t> input_order;  // empty, or [cols]: column k multiplies input input_order[k]
  std::shared_ptr<const OutlierColumns> outliers;  // null, or not empty; never with input_order
  // Code::kAdditive only: dense, [codebooks << bits][group_rows * vector_cols], a vector a row.
  std::shared_ptr<const QTensor> codebooks;
  // has_static_inputs() only: x is about input_scale * (code - input_zero).
  float input_scale = 0;
  int input_zero = 0;

  // Of a row of codes: kAdditive has one for the group_rows rows of its vectors.
  int64_t row_bytes() const {
    return (cols / scheme.vector_cols * scheme.codebooks * scheme.bits + 7) / 8;
  }
  int64_t code_rows() const {
    return scheme.code == Code::kAdditive ? rows / scheme.group_rows : rows;
  }
  int64_t groups() const {
    return scheme.group_size == 0 ? 0 : (cols + scheme.group_size - 1) / scheme.group_size;
  }
  int64_t scale_rows() const { return (rows + scheme.group_rows - 1) / scheme.group_rows; }
  // Bytes of codes, scales (fp16, or in 8 bits if their form allows), zeros and outliers: what the
  // weight costs in a file.
  int64_t stored_bytes() const;
};

// Columns that are multiplied in 16 bits because their inputs are large (MixQ, QUIK): their weights
// are these, whatever the codes say, and their inputs are not rounded with the others.
struct OutlierColumns {
  std::vector<int32_t> columns;  // distinct, in any order
  QTensor weight;                // dense, [rows][columns.size()]
};

// Throws kCorruptFile naming `name` if sizes do not fit the scheme, a scale or offset is not
// finite or of the scheme's form, a code is NaN, input_order is not a permutation, outliers are
// not distinct columns with finite weights, or codebooks or input scales are missing or not finite.
void validate(const QTensor& weight, const std::string& name);

// Row `row` as fp32, in the order of the inputs (input_order undone). out: [cols].
void dequantize_row(const QTensor& weight, int64_t row, float* out);
// The whole matrix, row-major. out: [rows][cols].
std::vector<float> dequantize(const QTensor& weight);

// A dense fp32 weight that owns its values.
QTensor dense_f32(std::vector<float> values, int64_t rows, int64_t cols);

// A linear layer as stored: weight and optional bias ([rows] or empty).
struct LinearWeight {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  QTensor weight;
  std::vector<float> bias;
};

}  // namespace lowbit

// What the packed formats share: typed access to stored tensors, bit fields in 32-bit words, and
// column order as a group index.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

// A tensor of `source` with its name for errors; its size is checked against shape and dtype.
// Throws kCorruptFile if it is missing or its dtype is not one of `dtypes` ("I32", "F16 BF16 F32").
StoredTensor typed_tensor(const TensorSource& source, const std::string& name,
                          const std::string& dtypes);
// Throws kCorruptFile naming tensor and both shapes unless it has this shape.
void expect_shape(const StoredTensor& tensor, const std::vector<int64_t>& shape);
std::string shape_text(const std::vector<int64_t>& shape);  // "[64, 512]"

std::vector<float> floats_of(const StoredTensor& tensor);    // F16, BF16, F32
std::vector<int32_t> int32s_of(const StoredTensor& tensor);  // I32
std::vector<int64_t> int64s_of(const StoredTensor& tensor);  // I64

StoredTensor stored_int32s(std::string name, std::vector<int64_t> shape,
                           const std::vector<int32_t>& values);
// Throws kInvalidArgument if fp16 does not hold a value exactly.
StoredTensor stored_halfs(std::string name, std::vector<int64_t> shape,
                          const std::vector<float>& values);

constexpr int64_t words_for(int64_t fields, int bits) { return (fields * bits + 31) / 32; }

// The order that sorts columns by group, for a checkpoint whose column k is in group index[k].
// Empty if column k is in group k / group_size, or if the index is all zeros (never filled in).
// Throws kCorruptFile if a group is out of range, kUnsupported if the groups are not of group_size
// columns each (the last may be smaller).
std::vector<int32_t> order_of_groups(const std::vector<int32_t>& index, int64_t group_size,
                                     const std::string& name);
// The inverse: the group of each input column.
std::vector<int32_t> group_of_columns(const QTensor& weight);

// Rows of packed codes with columns moved: column k of the result is column order[k] of `codes`.
// Both [rows][row_bytes].
std::vector<uint8_t> gather_columns(const std::vector<uint8_t>& codes, int64_t rows, int64_t cols,
                                    int bits, const std::vector<int32_t>& order);

// The codes with columns in the order of the inputs (input_order undone). [rows][row_bytes()]
std::vector<uint8_t> codes_by_input(const QTensor& weight);

}  // namespace lowbit

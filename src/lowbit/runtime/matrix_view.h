// MatrixView: a dense fp32 matrix in memory, host's or device's.
#pragma once

#include <cstdint>

namespace lowbit {

// A matrix whose element [i][j] is data[i * row_stride + j * column_stride].
struct MatrixView {
  const float* data = nullptr;
  int64_t row_stride = 0;
  int64_t column_stride = 1;
};

// Row-major, `stride` elements a row; and its transpose.
inline MatrixView rows_of(const float* data, int64_t stride) { return {data, stride, 1}; }
inline MatrixView transposed(const float* data, int64_t stride) { return {data, 1, stride}; }

}  // namespace lowbit

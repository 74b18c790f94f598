// Dense matrix products of fp32 matrices on the device, for code that fits weights to data. Inputs
// are rounded to TF32 (10 bits of mantissa), sums are fp32, each in an order that depends on k
// alone: the same inputs give the same bits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "lowbit/runtime/matrix_view.h"

namespace lowbit::cuda {

// Where the matrices of one of many products of a shape begin, in elements from the first's:
// product z is head z % heads of sequence z / heads.
struct GemmOffsets {
  int64_t sequence = 0;
  int64_t head = 0;
  int64_t heads_sharing = 1;  // that many heads in a row have one matrix
};

struct GemmBatch {
  int64_t sequences = 1;
  int64_t heads = 1;
  GemmOffsets a = {}, b = {}, c = {};
};

// c = a * b, or c += a * b if `add`. a: [m][k]  b: [k][n]  c: [m][n], rows of c_stride. One of the
// strides of a and of b is 1.
void multiply(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c,
              int64_t c_stride, bool add, const GemmBatch& batch, cudaStream_t stream);

}  // namespace lowbit::cuda

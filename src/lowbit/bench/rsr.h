// RSR: matrix times vector by redundant segments (Dehghankar et al. 2024, arXiv:2411.06360), for
// ternary weights. Rows are cut into blocks of k; columns of a block that hold the same k digits
// are put into one group beforehand, so that each input is added once per block instead of once per
// row, and k outputs are made of at most 3^k sums.
//
// A reference beside the 2-bit kernels (runtime/cpu), to compare with: it reads a 16-bit column
// number per k weights, 16 / k bits each, from scattered addresses, and they 2 bits in a row.
#pragma once

#include <cstdint>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit {

class RsrMatrix {
 public:
  // A weight whose codes take three neighbouring values at most around its zero, with a scale per
  // row; at most 65536 columns. Throws kUnsupported for others. k: rows of a block, 1 to 6.
  RsrMatrix(const QTensor& weight, int k);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t bytes() const;
  // y = W * x. x: [cols]  y: [rows]
  void multiply(const float* x, float* y, ThreadPool& pool) const;

 private:
  void pack_block(const QTensor& weight, int64_t block);

  int64_t rows_, cols_;
  int k_;
  int patterns_ = 1;               // 3^k
  std::vector<uint16_t> columns_;  // [blocks][cols], by pattern
  std::vector<uint32_t> starts_;   // [blocks][patterns + 1] in the block's columns
  std::vector<float> scales_;      // [rows]
};

}  // namespace lowbit

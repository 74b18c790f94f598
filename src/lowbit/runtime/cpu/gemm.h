// Dense fp32 matrix products, for code that trains or fits weights: calibration and AutoRound.
// (Inference multiplies by packed weights instead: linear.h.)
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/runtime/cpu/gemm_tiles.h"

namespace lowbit::cpu {

using lowbit::rows_of;
using lowbit::transposed;

// Products with buffers of their own: one object per thread that multiplies.
class Gemm {
 public:
  // The kernel for `isa`, as select_gemm() knows it; empty: for LOWBIT_CPU_ISA, or the machine's
  // best. Without a pool, products run on the calling thread.
  explicit Gemm(ThreadPool* pool = nullptr, const std::string& isa = {});

  // c = a * b, or c += a * b if `accumulate`. a: [m][k]  b: [k][n]  c: [m][n], rows of c_stride.
  // Every element is summed in an order that depends on k only.
  void multiply(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c,
                int64_t c_stride, bool accumulate = false) {
    multiply_blocks(m, n, k, a, b, c, c_stride, accumulate, false);
  }
  // c = a * transpose(a): its lower half, and what else of c, [m][m], lies in the blocks on the
  // diagonal.
  void multiply_self(int64_t m, int64_t k, MatrixView a, float* c) {
    const MatrixView b = {a.data, a.column_stride, a.row_stride};
    multiply_blocks(m, m, k, a, b, c, m, false, true);
  }

  const char* isa() const { return kernel_.isa; }

 private:
  struct Blocks {
    int64_t rows = 0;    // of a
    int64_t panels = 0;  // of b
  };
  Blocks blocks_for(int64_t m, int64_t n) const;
  void multiply_blocks(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c,
                       int64_t c_stride, bool accumulate, bool lower);
  void pack_b(MatrixView b, int64_t k, int64_t n);
  void multiply_block(MatrixView a, int64_t rows, int64_t k, int64_t first_panel, int64_t panels,
                      int64_t n, float* c, int64_t c_stride, bool accumulate, int thread);
  int64_t padded(int64_t depth) const;
  void run(int64_t count, const std::function<void(int64_t, int)>& body);

  ThreadPool* pool_;
  const GemmKernel& kernel_;
  std::vector<float> packed_b_;               // [panels][k][columns]
  std::vector<std::vector<float>> packed_a_;  // per thread: [tiles][k][rows], and one c tile
};

}  // namespace lowbit::cpu

// Second moments of the inputs of a block's linears over the calibration data.
#pragma once

#include <array>
#include <vector>

#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/runtime/cpu/gemm.h"

namespace lowbit {

// Sum of x * x^T over inputs x. Added in fp64 sample after sample: the same for any number of
// threads.
struct Hessian {
  int64_t cols = 0;
  std::vector<double> values;  // [cols][cols], the lower half only

  // x: [tokens][cols], one sample.
  void add(const float* x, int64_t tokens, cpu::Gemm& gemm, ThreadPool& pool);

 private:
  std::vector<float> products_;  // of one sample
};

// Of the groups that have something to quantize (the others stay empty), for the block on its
// quantized input.
std::array<Hessian, kLinearGroups> block_hessians(BlockJob& job);

}  // namespace lowbit

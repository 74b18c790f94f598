// Elementwise loops of code that fits weights in fp32 (quantize/decoder_block.h), per instruction
// set. All sets compute the same bits.
#pragma once

#include <cstdint>

namespace lowbit::cpu {

struct FitKernels {
  // scores[i] = e^(scale * scores[i]) over the sum of them; returns the sum's logarithm. `scale` is
  // positive.
  float (*softmax)(float* scores, int64_t count, float scale);
  // out[i] = silu(gate[i]) * up[i]
  void (*swiglu)(const float* gate, const float* up, float* out, int64_t count);
  // dgate and dup from dout, of swiglu's out.
  void (*swiglu_backward)(const float* gate, const float* up, const float* dout, float* dgate,
                          float* dup, int64_t count);
};

extern const FitKernels kPlainFitKernels;  // fit_kernels.cpp
extern const FitKernels kAvx2FitKernels;   // kernels_avx2_fit.cpp

// The best that this machine has.
const FitKernels& fit_kernels();

}  // namespace lowbit::cpu

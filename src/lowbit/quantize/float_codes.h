// Weights as small floats, nearest to even: FP8 (E4M3) with a scale for the tensor, each row or
// each block; the microscaling formats MXFP8 and MXFP4 (OCP MX 1.0: 32 columns share a power of
// two); and NVFP4 (16 columns share an E4M3 scale, the tensor an fp32 one). The grids are those
// that compressed-tensors' observers choose:
//
//   fp8    scale = max|w| / 448
//   mx     scale = 2^(e - 2) for E2M1, 2^(e - 8) for E4M3, where 2^e is max|w| rounded down, or up
//          from 1.75 * 2^e
//   nvfp4  global = 448 * 6 / max|W|,  scale = e4m3(global * max|w| / 6) / global
#pragma once

#include "lowbit/quantize/quantizer.h"

namespace lowbit {

class FloatCodes final : public Quantizer {
 public:
  // Takes schemes of Code::kE4M3 and Code::kE2M1. A group of zeros gets scale 1.
  QTensor quantize(const LinearJob& job, const QuantScheme& scheme) const override;
};

// LLM.int8()'s weights: scale = max|w| / 127 in fp32 for each row.
class Int8Rows final : public Quantizer {
 public:
  QTensor quantize(const LinearJob& job, const QuantScheme& scheme) const override;
};

}  // namespace lowbit

// HQQ, half-quadratic quantization (Badri and Shaji 2023, mobiusml.github.io/hqq_blog): moves the
// zero point of each group, a float, to where the error's 0.7-norm is least. Needs no data.
//
// From there, which the published program does not do, scale and zero of each group are fitted to
// its weights by least squares, also from narrower ranges about the same middle, and the best is
// kept: on SmolLM2's weights that takes a fifth off the squared error.
//
// Scales and zeros are rounded to fp16, which is what the format stores, and codes are chosen for
// the rounded numbers.
#pragma once

#include "lowbit/quantize/quantizer.h"

namespace lowbit {

class Hqq final : public Quantizer {
 public:
  // Takes int_scheme(1 to 8 bits, a group that divides the columns, Zero::kOffset).
  QTensor quantize(const LinearJob& job, const QuantScheme& scheme) const override;
};

}  // namespace lowbit

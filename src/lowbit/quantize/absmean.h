// Weights of two or three values, the mean magnitude s of each group times:
//
//   ternary  -1, 0 or 1 (absmean: Ma et al. 2024, BitNet b1.58, arXiv:2402.17764),
//            clip(round(w / s), -1, 1)
//   int1     -1 or 1 (Rastegari et al. 2016, XNOR-Net, arXiv:1603.05279), the sign: of all binary
//            codes with one scale a group these have the least squared error
//
// BitNet has one group for the whole matrix: scheme.group_rows and group_size 0. Made for models
// that were trained so, which they leave as they are; of others they leave little.
#pragma once

#include "lowbit/quantize/quantizer.h"

namespace lowbit {

// s is rounded to fp16 first. Halves round to even, as in BitNet.
class Ternary final : public Quantizer {
 public:
  // Scheme: 2 bits, Zero::kNone; codes 1, 2 and 3.
  QTensor quantize(const LinearJob& job, const QuantScheme& scheme) const override;
};

class Int1 final : public Quantizer {
 public:
  // Scheme: 1 bit, Zero::kOffset; scales 2 s, offsets -s.
  QTensor quantize(const LinearJob& job, const QuantScheme& scheme) const override;
};

}  // namespace lowbit

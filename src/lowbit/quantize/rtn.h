// RTN: every weight to the nearest point of its group's grid, independently. The baseline that
// other methods must beat.
//
//   symmetric   scale = max|w| / (2^(b-1) - 1),  q = clamp(round(w / scale)) + 2^(b-1)
//   asymmetric  scale = (max - min) / (2^b - 1), zero = round(-min / scale),
//               q = clamp(round(w / scale) + zero), min <= 0 <= max
//
// The scale is rounded to fp16 before it is used. A group of zeros gets scale 1; a scale below
// fp16's smallest becomes that. Halves round to even.
#pragma once

#include "lowbit/quantize/quantizer.h"

namespace lowbit {

class Rtn final : public Quantizer {
 public:
  QTensor quantize(const LinearJob& job, const QuantScheme& scheme) const override;
};

}  // namespace lowbit

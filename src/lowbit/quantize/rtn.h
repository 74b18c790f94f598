// RTN: every weight to the nearest point of its group's grid, independently. The baseline that
// other methods must beat.
//
//   symmetric   scale = max|w| / (2^(b-1) - 1),  q = clamp(round(w / scale)) + 2^(b-1)
//   asymmetric  scale = (max - min) / (2^b - 1), zero = round(-min / scale),
//               q = clamp(round(w / scale) + zero), min <= 0 <= max
//
// The scale is rounded to fp16 before it is used. A group of zeros gets scale 1; a scale below
// fp16's smallest becomes that. Halves round to even.
//
// With Search::kScale each group takes the grid of least squared error among about 200. Symmetric,
// as AutoRound does without tuning ("OPT-RTN"): the weight of largest magnitude lies at 0.25
// to 1.75 times -2^(b-1) steps, so that a scale may be negative. Asymmetric: both ends of the range
// shrink together, down to half.
#pragma once

#include "lowbit/quantize/quantizer.h"

namespace lowbit {

class Rtn final : public Quantizer {
 public:
  enum class Search { kNone, kScale };
  explicit Rtn(Search search = Search::kNone) : search_(search) {}
  QTensor quantize(const LinearJob& job, const QuantScheme& scheme) const override;

 private:
  Search search_;
};

}  // namespace lowbit

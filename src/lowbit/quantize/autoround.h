// AutoRound (SignRound, arXiv:2309.05516): learns, block by block, how each weight is rounded and
// where each group's range ends, so that the quantized block, fed by the quantized blocks before
// it, repeats what the original block makes of its original input. Gradient descent by sign, with
// a rate that falls linearly to 0, so that no weight's rounding moves by more than a half.
//
// Unlike the published program: a token's error counts relative to the size of its target, the
// symmetric scales start from a search instead of the largest weight, and the last parameters are
// kept rather than those of the best batch. docs/quality.md says what that brings.
#pragma once

#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/method_options.h"

namespace lowbit {

class AutoRound final : public BlockQuantizer {
 public:
  // Throws kInvalidArgument if iterations or batch_size are not positive or the rate is negative.
  explicit AutoRound(const AutoRoundOptions& options);
  CalibrationNeeds needs() const override;
  // Takes integer codes of 2 to 8 bits, symmetric or with integer zeros.
  BlockResult quantize(BlockJob& job) const override;

 private:
  AutoRoundOptions options_;
};

}  // namespace lowbit

// NF4 and FP4 as bitsandbytes makes them (Dettmers et al. 2023, arXiv:2305.14314): in blocks of
// weights in row-major order, the nearest entry of a table times the block's largest magnitude.
// With ScaleForm::kNested those magnitudes, less their mean, are stored in 8 bits, in blocks of
// 256.
//
// scheme.group_size is the block. Blocks may cross rows, so the result's group_size is the greatest
// common divisor of block and columns.
#pragma once

#include <array>

#include "lowbit/quantize/quantizer.h"

namespace lowbit {

class BlockCodes final : public Quantizer {
 public:
  QTensor quantize(const LinearJob& job, const QuantScheme& scheme) const override;
};

// The 256 values of bitsandbytes' signed 8-bit dynamic type (arXiv:1511.04561), ascending.
std::array<float, 256> dynamic_table();

}  // namespace lowbit

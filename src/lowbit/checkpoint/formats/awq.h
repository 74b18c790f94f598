// AWQ checkpoints as AutoAWQ and transformers write them, version GEMM.
//
// A linear [N][K] in G groups of columns, 4 bits:
//   qweight I32 [K][N / 8]   nibble i of word c is row 8c + (0, 2, 4, 6, 1, 3, 5, 7)[i]
//   qzeros  I32 [G][N / 8]   the same; may be absent: all 8
//   scales  F16 [G][N]       w = scale * (q - zero)
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kAwqFormat;

}  // namespace lowbit

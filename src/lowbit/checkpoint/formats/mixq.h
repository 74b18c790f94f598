// MixQ checkpoints (Qcompiler/MIXQ and QComplier).
//
// A linear [N][K] with O columns (usually 128) kept in 16 bits:
//   weight        I8 [N][K], or U8 [N][K / 2]: two's-complement nibbles, the even column low
//   scale_col     F16 [1][N]         w = weight * scale_col, but for the O columns
//   ind           I32 [O]            which these are, in any order
//   weight_cache  F16 [N][O]         their weights
// O is 0 in what lowbit writes without outliers. q_weight and q_scale_col, copies of the weight for
// small batches in the layout of GPU kernels (mixq_copy.h), are written by "mixq-gpu", and read
// where there is no `weight`.
//
// The description (quant_config.json, or quantization_config in config.json) is {"version": "MIX",
// "w_bit": 8 or 4}; with 4, some modules (down_proj) have 8 bits all the same, as their dtype says.
// Inputs are rounded token by token to as many bits as the weight has; "a_bit", which is lowbit's,
// says so of 4-bit weights with 8-bit inputs (8), or that they are not rounded at all (16).
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kMixqFormat;
// The same with q_weight beside each weight. Read as "mixq".
extern const CheckpointFormat kMixqGpuFormat;

}  // namespace lowbit

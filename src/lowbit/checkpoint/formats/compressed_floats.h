// compressed-tensors checkpoints whose weights are not packed integers, and the row of the table
// that chooses among all of compressed-tensors' formats by a module's tensors:
//
//   pack-quantized        compressed_tensors.h
//   int-quantized         weight I8 [N][K], weight_scale [1], [N][1] or [N][G],
//                         weight_zero_point I8 of the same shape if asymmetric
//   float-quantized       weight F8_E4M3 [N][K], weight_scale [1], [N][1], [N][G] or
//                         [N / 128][K / 128]
//   mxfp8-quantized       the same, weight_scale U8 [N][K / 32], powers of two
//   mxfp4-pack-quantized  weight_packed U8 [N][K / 2], even columns in the low nibble;
//                         weight_scale U8 [N][K / 32], powers of two
//   nvfp4-pack-quantized  weight_packed the same, weight_scale F8_E4M3 [N][K / 16],
//                         weight_global_scale F32 [1], which divides
//
// Only weights are quantized here: descriptions and static scales of activations are ignored.
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kCompressedFormat;

}  // namespace lowbit

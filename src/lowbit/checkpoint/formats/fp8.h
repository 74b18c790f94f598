// FP8 checkpoints of transformers: quant_method "fp8" (DeepSeek's blocks, or one scale a tensor)
// and "fbgemm_fp8" (one scale a row).
//
//   weight           F8_E4M3 [N][K]
//   weight_scale_inv F32 [N / 128][K / 128]  blocks of weight_block_size; it multiplies
//   weight_scale     F32 scalar, [1] or [N][1]
//
// Only weights are in 8 bits here: the scales of static activations (input_scale) are ignored.
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kFp8Format;

// One extent of a block as a description states it. Throws kCorruptFile if it is not 1 to 2^20.
int64_t block_extent(const Json& number, const std::string& origin);

// A weight of F8_E4M3 with a scale for the tensor, its rows, or blocks of block_rows x block_cols
// (only if `scale` is of such a shape). Throws kCorruptFile naming the shapes.
QTensor fp8_weight(const StoredTensor& codes, const StoredTensor& scale, int64_t block_rows,
                   int64_t block_cols);

}  // namespace lowbit

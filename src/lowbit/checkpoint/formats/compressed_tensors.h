// compressed-tensors checkpoints (llm-compressor, vLLM), format pack-quantized.
//
// A linear [N][K] in G groups of columns:
//   weight_packed     I32 [N][K * bits / 32]   codes + 2^(bits-1), a bit stream along K
//   weight_scale      F16 [N][G], [N][1] for strategy channel, [1] for tensor
//   weight_zero_point I32 [N * bits / 32][G]   asymmetric only; a bit stream down N
//   weight_shape      I64 [2] = N, K
//   weight_g_idx      I32 [K]                  with activation ordering only
//
// Before May 2026, widths that do not divide 32 had 32 / bits codes in each word and unused bits at
// its top; both layouts are read, the dense one is written.
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kCompressedTensorsFormat;

}  // namespace lowbit

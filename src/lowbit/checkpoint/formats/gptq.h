// GPTQ checkpoints as AutoGPTQ, GPTQModel and transformers write them, versions 1 and 2.
//
// A linear [N][K] in G groups of columns:
//   qweight I32 [K * bits / 32][N]   bit stream along K, down the rows
//   qzeros  I32 [G][N * bits / 32]   bit stream along N; version 1 stores zero - 1
//   scales  F16 [G][N]
//   g_idx   I32 [K]                  group of each column; may be absent
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kGptqFormat;

}  // namespace lowbit

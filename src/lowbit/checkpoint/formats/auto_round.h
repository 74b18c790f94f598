// AutoRound's own checkpoints: GPTQ's or AWQ's tensors under another description.
//
//   packing_format        tensors                     zeros            g_idx
//   auto_round:auto_gptq  GPTQ                        stored less one  absent
//   auto_round:gptqmodel  GPTQ                        as they are      present
//   auto_round            GPTQ                        as they are      absent
//   auto_round:auto_awq   AWQ GEMM                    as they are      -
// Symmetric scales may be negative.
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kAutoRoundFormat;     // GPTQ's tensors
extern const CheckpointFormat kAutoRoundAwqFormat;  // AWQ's

}  // namespace lowbit

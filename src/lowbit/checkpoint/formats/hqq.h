// HQQ checkpoints (mobiusml/hqq) in safetensors, axis 1.
//
// A linear [N][K] in groups of g columns is held as R = N * K / g rows of g codes:
//   W_q    codes, several rows in one element:
//            8bit_u8  U8 [R][g]
//            4bit_u8  U8 [R / 2][g]           row r in the high bits, r + R / 2 in the low
//            2bit_u8  U8 [R / 4][g]           quarters from the high bits down; 1bit_u8: eighths
//            3bit_32  I32 [ceil(R / 10)][g]   tenths from bit 27 down
//   scale, zero  floats [R][1]                w = (q - zero) * scale
//   shape I64 [2]; nbits, group_size, axis I32; packing, ... U8 text
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kHqqFormat;

}  // namespace lowbit

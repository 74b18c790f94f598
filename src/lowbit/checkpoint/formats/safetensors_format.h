// Plain checkpoints: every linear a dense F32, F16 or BF16 "<module>.weight" [rows][cols]. Also how
// modules that a quantized checkpoint leaves alone are stored.
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kSafetensorsFormat;

// A dense matrix [rows][cols], or [n] as one row. Bytes stay where they are if they are aligned.
// Throws kUnsupported naming another dtype, kCorruptFile on another rank or an empty shape.
QTensor dense_weight(const StoredTensor& tensor);

}  // namespace lowbit

// ggml's block formats: sizes, and blocks to QTensors (formats: ggml-common.h). Quantizers for
// those lowbit writes are in quantize/.
#pragma once

#include <cstdint>
#include <string>

#include "lowbit/tensor/qtensor.h"

namespace lowbit {

struct GgmlType {
  uint32_t id;
  const char* name;     // "Q4_K"
  int64_t block_elems;  // elements in one block
  int64_t block_bytes;
  // Fills codes, scales, zeros, offsets of a QTensor whose scheme, rows and cols are set from
  // `blocks`; null: lowbit knows the type's size but cannot read it.
  QTensor (*read)(Bytes blocks, int64_t rows, int64_t cols);
};

// Null if ggml has no such type (or removed it).
const GgmlType* ggml_type(uint32_t id);
const GgmlType* ggml_type(const std::string& name);

}  // namespace lowbit

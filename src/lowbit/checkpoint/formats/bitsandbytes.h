// bitsandbytes checkpoints as transformers writes them: NF4 and FP4 in 4 bits, LLM.int8() in 8.
//
// A linear [N][K] in 4 bits, its elements in row-major order in blocks that may cross rows:
//   weight                                 U8 [N * K / 2][1]    element 2i in the high nibble
//   weight.absmax                          F32 [blocks], or U8 with double quantization
//   weight.quant_map                       F32 [16]
//   weight.nested_absmax, nested_quant_map F32 [blocks / 256], [256]
//   weight.quant_state.bitsandbytes__nf4   U8, a JSON text: blocksize, shape, nested_offset, ...
// In 8 bits:
//   weight I8 [N][K], SCB F32 [N] (largest magnitude of the row), weight_format U8 = 0
//
// The values here are before bitsandbytes rounds them to the dtype of the model.
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kBitsandbytesFormat;

// The part in bitsandbytes_int8.cpp.
namespace bitsandbytes {
bool is_int8(const TensorSource& source, const std::string& module);
QTensor read_int8(const TensorSource& source, const std::string& module);
std::vector<StoredTensor> write_int8(const std::string& module, const QTensor& weight);
}  // namespace bitsandbytes

}  // namespace lowbit

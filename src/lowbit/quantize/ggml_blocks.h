// Rows of weights as the small blocks of ggml: 32 weights and one fp16 scale (and offset), and the
// ternary and binary blocks (formats: ggml-common.h). encode_* exactly as ggml's reference
// quantizers make them; search_* with the scale (and offset) of least weighted error, see
// line_fit.h.
#pragma once

#include <cstdint>
#include <span>

#include "lowbit/tensor/qtensor.h"

namespace lowbit {

// One row, whose size the block's divides, to blocks at `out`. False if a scale overflowed fp16.
// Blocks of 32:
bool encode_q4_0(std::span<const float> row, uint8_t* out);  // 18 bytes
bool encode_q4_1(std::span<const float> row, uint8_t* out);  // 20 bytes
bool encode_q5_0(std::span<const float> row, uint8_t* out);  // 22 bytes
bool encode_q5_1(std::span<const float> row, uint8_t* out);  // 24 bytes
bool encode_q8_0(std::span<const float> row, uint8_t* out);  // 34 bytes
bool search_q4_0(std::span<const float> row, uint8_t* out);
bool search_q4_1(std::span<const float> row, uint8_t* out);
bool search_q5_0(std::span<const float> row, uint8_t* out);
bool search_q5_1(std::span<const float> row, uint8_t* out);

// The type of blocks of 32 that holds integers of a scheme as they are (4, 5 and 8 bits without,
// 4 and 5 with zero points or offsets); null if there is none.
const char* ggml_type_of(const QuantScheme& scheme);
// A row of such a weight. What a code of 0 stands for is rounded to fp16 where the type has it.
bool store_codes(const QTensor& weight, int64_t row, uint8_t* out);

// -d, 0 or d, d the largest magnitude: exact for weights that are ternary already.
bool encode_q2_0(std::span<const float> row, uint8_t* out);   // 64 weights, 18 bytes
bool encode_tq1_0(std::span<const float> row, uint8_t* out);  // 256 weights, 54 bytes
bool encode_tq2_0(std::span<const float> row, uint8_t* out);  // 256 weights, 66 bytes
// -d or d, d the mean magnitude: exact for weights that are binary already. 128 weights, 18 bytes.
bool encode_q1_0(std::span<const float> row, uint8_t* out);

}  // namespace lowbit

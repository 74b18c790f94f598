// Rows of weights as blocks of ggml's K-quants (formats: ggml-common.h); the fit: k_fit.h.
#pragma once

#include <cstdint>
#include <span>

namespace lowbit {

// One row, whose size 256 divides, to blocks of 84, 110, 144, 176 and 210 bytes at `out`. False if
// a factor of the scales overflowed fp16.
bool encode_q2_k(std::span<const float> row, uint8_t* out);
bool encode_q3_k(std::span<const float> row, uint8_t* out);
bool encode_q4_k(std::span<const float> row, uint8_t* out);
bool encode_q5_k(std::span<const float> row, uint8_t* out);
bool encode_q6_k(std::span<const float> row, uint8_t* out);

}  // namespace lowbit

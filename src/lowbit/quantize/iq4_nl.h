// Rows of weights as blocks of IQ4_NL (format: ggml-common.h): 32 codes of a table of 16 whose
// steps grow outwards, and one fp16 scale.
#pragma once

#include <cstdint>
#include <span>

namespace lowbit {

// One row, whose size 32 divides, to blocks of 18 bytes at `out`, each with the scale of least
// squared error among some 30, a weight x counting |x| + the block's root mean square. False if a
// scale overflowed fp16.
bool encode_iq4_nl(std::span<const float> row, uint8_t* out);

}  // namespace lowbit

// Scales, offsets and zero points in kernel layout.
#pragma once

#include "lowbit/runtime/cpu/layouts.h"
#include "lowbit/runtime/cpu/rows.h"

namespace lowbit::cpu {

bool is_half(float value);  // exactly a fp16

// Fills scales, offsets and zeros of packed.matrix, whose shape and affine are set. Floats are held
// as fp16 where all are exactly that; else as multiples of a float of every 256 columns where all
// are (K-quants store them so); else as fp32.
void pack_groups(const Rows& rows, PackedWeight& packed, Packer& packer);

// The float of which all values are multiples between -128 and 127, and these; false if there is
// none. multiples: as many as values.
bool find_common_factor(std::span<const float> values, float& factor, int8_t* multiples);

}  // namespace lowbit::cpu

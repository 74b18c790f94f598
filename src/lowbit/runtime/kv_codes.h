// What a KV cache of few bits holds in place of a key or a value of a head. Scales and offsets are
// halves, and codes are chosen for them as they are rounded: every backend reads the same numbers.
// int8 is round_inputs() of tensor/input_codes.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

// x[i] is about scale * e4m3(codes[i]); scale, a half, is max|x| / 448, or 2^-14 if that is more:
// codes are floats, and lose nothing by it until 1e-6. NaN, and codes of 0, if some x is not
// finite.
inline uint16_t round_to_e4m3(const float* x, int64_t count, uint8_t* codes) {
  float most = 0, fault = 0;
  for (int64_t i = 0; i < count; ++i) {
    most = std::max(most, std::fabs(x[i]));
    fault += x[i] * 0.f;
  }
  const uint16_t scale = f32_to_f16(std::max(most / kE4M3Max, 0x1p-14f) + fault);
  const float inverse = 1.f / f16_to_f32(scale);
  for (int64_t i = 0; i < count; ++i)
    codes[i] = fault == 0 ? f32_to_e4m3(x[i] * inverse) : uint8_t{0};
  return scale;
}

// Codes of 4 bits stand for scale * (16 + code) + offset: 16 + code is a half whose bits are those
// of 16 beside the code's.
struct KvAffine {
  uint16_t scale = 0, offset = 0;  // halves

  float value(int code) const {
    return f16_to_f32(scale) * static_cast<float>(16 + code) + f16_to_f32(offset);
  }
};

// The codes of a group, each in a byte, between its least and its greatest value. The offset is NaN
// if some x is not finite.
inline KvAffine round_to_4_bits(const float* x, int64_t count, uint8_t* codes) {
  float least = x[0], greatest = x[0], fault = 0;
  for (int64_t i = 0; i < count; ++i) {
    least = std::min(least, x[i]);
    greatest = std::max(greatest, x[i]);
    fault += x[i] * 0.f;
  }
  KvAffine group;
  group.scale = f32_to_f16((greatest - least) * (1.f / 15));
  const float scale = f16_to_f32(group.scale);
  group.offset = f32_to_f16(least - 16 * scale + fault);
  const float offset = f16_to_f32(group.offset), inverse = scale > 0 ? 1.f / scale : 0.f;
  for (int64_t i = 0; i < count; ++i) {
    // Not above 31 and not below 16, also if it is NaN.
    const float rounded = std::nearbyint((x[i] - offset) * inverse);
    codes[i] = static_cast<uint8_t>(std::max(16.f, std::min(31.f, rounded))) & 15;
  }
  return group;
}

}  // namespace lowbit

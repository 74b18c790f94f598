// Code tables and 8-bit floats: what a code of a non-integer scheme stands for.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace lowbit {

// NormalFloat 4 (Dettmers et al. 2023, arXiv:2305.14314): quantiles of the normal distribution.
inline constexpr float kNf4Table[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// bitsandbytes' own 4-bit float; bit 3 is the sign (of a plain 0 too).
inline constexpr float kFp4Table[16] = {
    0.f, 0.0625f / 12,  8.f / 12,  1.f,  4.f / 12,  6.f / 12,  2.f / 12,  3.f / 12,
    0.f, -0.0625f / 12, -8.f / 12, -1.f, -4.f / 12, -6.f / 12, -2.f / 12, -3.f / 12,
};

// E2M1, the 4-bit float of MXFP4 and NVFP4; bit 3 is the sign.
inline constexpr float kE2M1Table[16] = {0.f,  0.5f,  1.f,  1.5f,  2.f,  3.f,  4.f,  6.f,
                                         -0.f, -0.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f};

constexpr float kE4M3Max = 448.f;

// E4M3 without infinities ("e4m3fn"): bias 7, NaN is 0x7f and 0xff. Exact.
inline float e4m3_to_f32(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t magnitude = code & 0x7fu;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (magnitude < 8) {  // subnormal: units of 2^-9
    return std::bit_cast<float>(std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-9f) |
                                sign);
  }
  return std::bit_cast<float>(sign | ((magnitude + (120u << 3)) << 20));
}

// Round to nearest even; beyond +-448 saturates; NaN stays NaN.
inline uint8_t f32_to_e4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7fu;
  if (magnitude >= std::bit_cast<uint32_t>(kE4M3Max)) return sign | 0x7eu;
  if (magnitude < std::bit_cast<uint32_t>(0x1p-6f)) {
    // Adding 2^14 leaves the rounded count of 2^-9 in the low mantissa bits.
    const float shifted = std::bit_cast<float>(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000u));
  }
  const uint32_t rounded = magnitude + 0x7ffffu + ((magnitude >> 20) & 1u);
  return static_cast<uint8_t>(sign | ((rounded >> 20) - (120u << 3)));
}

// E8M0, a power of two: 2^(code - 127); 0xff is NaN.
inline float e8m0_to_f32(uint8_t code) {
  return code == 0xff ? std::nanf("") : std::ldexp(1.f, code - 127);
}

}  // namespace lowbit

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

// By which sums of `size` mixed dimensions are multiplied.
constexpr float mixing_factor(int64_t size, bool is_key) {
  float factor = 1;
  bool halves = is_key;  // each second time
  for (int64_t i = 1; i < size; i *= 2, halves = !halves) {
    if (halves) factor /= 2;
  }
  return factor;
}

// Caches of 4 bits hold keys that a Hadamard matrix has mixed, and queries are mixed too: their
// products stay, and a dimension that stands out is spread over all (QuaRot, arXiv 2404.00456). The
// matrix is that of the largest power of 2 that divides `count`, along the diagonal; it takes sums
// and differences of neighbours, then of pairs, fours ... With the factors, powers of 2 both, a
// query's and a key's multiply to 1 / its size.
inline void mix_dimensions(float* x, int64_t count, bool is_key) {
  const auto size =
      static_cast<int64_t>(static_cast<uint64_t>(count) & -static_cast<uint64_t>(count));
  for (int64_t apart = 1; apart < size; apart *= 2) {
    for (int64_t i = 0; i < count; ++i) {
      if ((i & apart) != 0) continue;
      const float a = x[i], b = x[i + apart];
      x[i] = a + b;
      x[i + apart] = a - b;
    }
  }
  const float factor = mixing_factor(size, is_key);
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
}

}  // namespace lowbit

// Loops that compilers vectorize without being allowed to reorder sums: for code in fp32 that fits
// weights. Internal linkage: each file may be compiled with flags of its own.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace lowbit {
namespace {

// Sum of term(i) over [0, count): eight sums side by side, always in the same order.
template <typename Term>
inline float sum_of(int64_t count, const Term& term) {
  float sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int lane = 0; lane < 8; ++lane) sums[lane] += term(i + lane);
  }
  for (; i < count; ++i) sums[i & 7] += term(i);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// e^x for x <= 0 within 2 units in the last place; e^-87 below -87. Cody-Waite reduction and the
// polynomial of Cephes' expf.
inline float exp_negative(float x) {
  x = x > -87.f ? x : -87.f;
  constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  return p * std::bit_cast<float>((exponent + 127) << 23);
}

inline float sigmoid(float x) {
  const float e = exp_negative(-std::fabs(x));
  return (x >= 0 ? 1.f : e) / (1.f + e);
}

}  // namespace
}  // namespace lowbit

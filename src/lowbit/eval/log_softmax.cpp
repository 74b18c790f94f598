#include "lowbit/eval/log_softmax.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace lowbit {

namespace {

// e^x for x <= 0, relative error below 2e-7 down to e^-87, then 0. Cody-Waite reduction and a
// polynomial in plain arithmetic, so that the compiler vectorizes the loop over a vocabulary.
inline float exp_negative(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693145752f, kLn2Low = 1.42860677e-6f;
  constexpr float kRound = 0x1.8p23f;  // adding it rounds to an integer in the low mantissa bits
  const float clamped = x < -87.f ? -87.f : x;
  const float shifted = clamped * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float p = 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;
  const float value = p * std::bit_cast<float>(exponent);
  return x < -87.f ? 0.f : value;
}

constexpr size_t kChunk = 256;

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kChunk) {
    const size_t count = std::min(kChunk, logits.size() - begin);
    float values[kChunk];
    for (size_t i = 0; i < count; ++i) values[i] = exp_negative(logits[begin + i] - top);
    for (size_t i = 0; i < count; ++i) sum += values[i];
  }
  return std::log(sum) + static_cast<double>(top);
}

double negative_log_likelihood(std::span<const float> logits, int32_t token) {
  return log_sum_exp(logits) - logits[static_cast<size_t>(token)];
}

double kl_divergence(std::span<const float> log_p, std::span<const float> logits) {
  constexpr float kNegligible = -16.f;
  const double normalizer = log_sum_exp(logits);
  double sum = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kChunk) {
    const size_t count = std::min(kChunk, logits.size() - begin);
    float p[kChunk];
    for (size_t i = 0; i < count; ++i) {
      const float log = log_p[begin + i];
      p[i] = log > kNegligible ? exp_negative(std::min(log, 0.f)) : 0.f;
    }
    for (size_t i = 0; i < count; ++i) {
      if (p[i] > 0) sum += p[i] * (log_p[begin + i] - (logits[begin + i] - normalizer));
    }
  }
  return sum;
}

}  // namespace lowbit

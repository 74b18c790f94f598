// Inputs of a linear in few bits, a scale for each token: the dynamic, symmetric "token" strategy
// of compressed-tensors, and what MixQ, SmoothQuant and vLLM's int8 kernels do.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/scheme.h"

namespace lowbit {

// x[k] is about scale * codes[k], codes of magnitude m = 2^(bits-1) - 1 at most:
//   scale = max|x| / m,  codes[k] = round(x[k] * (m / max|x|)), halves to even
// Returns the scale: 0 if all are (close to) 0, and NaN if some x is not finite. bits: 2 to 8.
inline float round_inputs(const float* x, int64_t cols, int bits, int8_t* codes) {
  constexpr int kLanes = 16;  // what a compiler keeps in vector registers
  float largest[kLanes] = {}, faults[kLanes] = {};
  const auto see = [&](float value, int lane) {
    const float magnitude = std::fabs(value);
    largest[lane] = largest[lane] < magnitude ? magnitude : largest[lane];
    faults[lane] += value * 0.f;
  };
  int64_t k = 0;
  for (; k + kLanes <= cols; k += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) see(x[k + lane], lane);
  }
  for (; k < cols; ++k) see(x[k], 0);
  float most = 0, fault = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    most = most < largest[lane] ? largest[lane] : most;
    fault += faults[lane];
  }
  const auto steps = static_cast<float>((1 << (bits - 1)) - 1);
  // The inverse of anything smaller could be infinite.
  const bool codable = fault == 0 && most > 1e-30f;
  const float inverse = codable ? steps / most : 0.f;
  constexpr float kRound = 12582912.f;  // 1.5 * 2^23 + x keeps no fraction
  for (k = 0; k < cols; ++k) {
    const float code = codable ? (x[k] * inverse + kRound) - kRound : 0.f;
    codes[k] = static_cast<int8_t>(static_cast<int>(code));
  }
  if (codable) return most / steps;
  return fault;  // 0, or NaN
}

// The same with codes that are 8-bit floats (E4M3), of magnitude 448 at most: what fp8 kernels call
// dynamic scales of tokens.
inline float round_inputs_to_floats(const float* x, int64_t cols, float* codes) {
  float most = 0, fault = 0;
  for (int64_t k = 0; k < cols; ++k) {
    most = most < std::fabs(x[k]) ? std::fabs(x[k]) : most;
    fault += x[k] * 0.f;
  }
  const bool codable = fault == 0 && most > 1e-30f;
  const float inverse = codable ? kE4M3Max / most : 0.f;
  for (int64_t k = 0; k < cols; ++k) {
    codes[k] = codable ? e4m3_to_f32(f32_to_e4m3(x[k] * inverse)) : 0.f;
  }
  return codable ? most / kE4M3Max : fault;
}

// Whichever the scheme asks for; integers as floats.
inline float round_inputs(const QuantScheme& scheme, const float* x, int64_t cols, float* codes) {
  if (scheme.code == Code::kE4M3) return round_inputs_to_floats(x, cols, codes);
  std::vector<int8_t> integers(static_cast<size_t>(cols));
  const float scale = round_inputs(x, cols, scheme.input_bits, integers.data());
  for (int64_t k = 0; k < cols; ++k) codes[k] = integers[static_cast<size_t>(k)];
  return scale;
}

}  // namespace lowbit

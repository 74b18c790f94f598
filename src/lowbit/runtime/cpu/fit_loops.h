// The bodies of FitKernels, in lanes that compilers vectorize; each file that includes this gives
// them instructions of its own.
#pragma once

#include "lowbit/base/vector_math.h"
#include "lowbit/runtime/cpu/fit_kernels.h"

namespace lowbit::cpu {
namespace {

float largest_of(const float* values, int64_t count) {
  constexpr int kLanes = 16;
  float lanes[kLanes];
  for (float& lane : lanes) lane = values[0];
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = values[i + lane];
      lanes[lane] = value > lanes[lane] ? value : lanes[lane];
    }
  }
  for (; i < count; ++i) lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
  float largest = lanes[0];
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

float softmax(float* scores, int64_t count, float scale) {
  const float largest = largest_of(scores, count);
  for (int64_t i = 0; i < count; ++i) scores[i] = exp_negative((scores[i] - largest) * scale);
  const float sum = sum_of(count, [&](int64_t i) { return scores[i]; });
  const float inverse = 1.f / sum;
  for (int64_t i = 0; i < count; ++i) scores[i] *= inverse;
  return largest * scale + std::log(sum);
}

void swiglu(const float* gate, const float* up, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

void swiglu_backward(const float* gate, const float* up, const float* dout, float* dgate,
                     float* dup, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float s = sigmoid(gate[i]), silu = gate[i] * s;
    const float d = dout[i];
    dup[i] = d * silu;
    dgate[i] = d * up[i] * (s + silu * (1.f - s));
  }
}

}  // namespace
}  // namespace lowbit::cpu

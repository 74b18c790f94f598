// Root mean square norm of one token in fp32, forward and backward, for code that fits weights.
#pragma once

#include <cmath>
#include <vector>

#include "lowbit/base/vector_math.h"

namespace lowbit {
namespace {

// out = x / rms(x) * weight, for rows of weight.size()
[[maybe_unused]] void rms_norm(const float* x, const std::vector<float>& weight, float eps,
                               float* out) {
  const auto size = static_cast<int64_t>(weight.size());
  const float squares = sum_of(size, [&](int64_t i) { return x[i] * x[i]; });
  const float scale = 1.f / std::sqrt(squares / static_cast<float>(size) + eps);
  for (int64_t i = 0; i < size; ++i) out[i] = x[i] * scale * weight[i];
}

// dx = dL/dx of rms_norm()'s out, given dout; added to dx if `add`. dx may be dout.
[[maybe_unused]] void rms_norm_backward(const float* x, const std::vector<float>& weight, float eps,
                                        const float* dout, float* dx, bool add) {
  const auto size = static_cast<int64_t>(weight.size());
  const float count = static_cast<float>(size);
  const float squares = sum_of(size, [&](int64_t i) { return x[i] * x[i]; });
  const float dot = sum_of(size, [&](int64_t i) { return dout[i] * weight[i] * x[i]; });
  const float scale = 1.f / std::sqrt(squares / count + eps);
  const float shrink = scale * scale * scale * dot / count;
  for (int64_t i = 0; i < size; ++i) {
    const float value = dout[i] * weight[i] * scale - x[i] * shrink;
    dx[i] = add ? dx[i] + value : value;
  }
}

}  // namespace
}  // namespace lowbit

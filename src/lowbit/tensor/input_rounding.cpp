#include "lowbit/tensor/input_rounding.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/input_codes.h"

namespace lowbit {

namespace {

constexpr int64_t kFloatGroup = 128;
constexpr float kTiny = 1e-30f;  // the inverse of anything smaller could be infinite

// Halves to even.
float nearest(float x) { return std::nearbyint(x); }

bool all_finite(const float* x, int64_t cols) {
  float fault = 0;
  for (int64_t k = 0; k < cols; ++k) fault += x[k] * 0.f;
  return fault == 0;
}

struct Steps {
  float scale, zero;
};

// Scale and zero point of a token's range.
Steps range_of(const float* x, int64_t cols, int bits) {
  float low = 0, high = 0;
  for (int64_t k = 0; k < cols; ++k) {
    low = std::min(low, x[k]);
    high = std::max(high, x[k]);
  }
  const float lowest = -static_cast<float>(1 << (bits - 1));
  const float scale = (high - low) / static_cast<float>((1 << bits) - 1);
  if (scale <= kTiny) return {0, 0};
  return {scale, std::clamp(nearest(lowest - low / scale), lowest, -lowest - 1)};
}

void round_integers(const Steps& steps, int bits, const float* x, int64_t cols, float* out) {
  const float low = -static_cast<float>(1 << (bits - 1)), high = -low - 1;
  for (int64_t k = 0; k < cols; ++k) {
    const float code = nearest(std::clamp(x[k] / steps.scale + steps.zero, low, high));
    out[k] = steps.scale * (code - steps.zero);
  }
}

void round_floats(float scale, const float* x, int64_t cols, float* out) {
  for (int64_t k = 0; k < cols; ++k) out[k] = scale * e4m3_to_f32(f32_to_e4m3(x[k] / scale));
}

float float_scale(const float* x, int64_t cols) {
  float largest = 0;
  for (int64_t k = 0; k < cols; ++k) largest = std::max(largest, std::fabs(x[k]));
  return largest / kE4M3Max;
}

}  // namespace

InputRounding input_rounding(const QTensor& weight) {
  const QuantScheme& scheme = weight.scheme;
  if (scheme.input_bits == 0) return {};
  InputRounding rounding{scheme.input_bits, scheme.input_form, scheme.code == Code::kE4M3, 0, 0};
  if (!has_static_inputs(scheme)) return rounding;
  rounding.scale = weight.input_scale;
  rounding.zero = weight.input_zero;
  return rounding;
}

std::string name_of(const InputRounding& rounding) {
  constexpr const char* kForms[] = {" a token", " a token with zero points", ", static",
                                    ", static with a zero point", " for 128 of a token"};
  return concat(rounding.bits, rounding.floats ? "-bit floats" : " bits",
                kForms[static_cast<int>(rounding.form)]);
}

void round_input_values(const InputRounding& rounding, const float* x, int64_t cols, float* out) {
  if (!all_finite(x, cols)) return void(std::fill_n(out, cols, std::nanf("")));
  switch (rounding.form) {
    case InputForm::kToken: {
      QuantScheme scheme = int_scheme(8, cols);
      if (rounding.floats) scheme.code = Code::kE4M3;
      scheme.input_bits = rounding.bits;
      std::vector<float> codes(static_cast<size_t>(cols));
      const float scale = round_inputs(scheme, x, cols, codes.data());
      for (int64_t k = 0; k < cols; ++k) out[k] = scale * codes[static_cast<size_t>(k)];
      return;
    }
    case InputForm::kTokenZero: {
      const Steps steps = range_of(x, cols, rounding.bits);
      if (steps.scale == 0) return void(std::fill_n(out, cols, 0.f));
      return round_integers(steps, rounding.bits, x, cols, out);
    }
    case InputForm::kStatic:
      if (rounding.floats) return round_floats(rounding.scale, x, cols, out);
      return round_integers({rounding.scale, 0}, rounding.bits, x, cols, out);
    case InputForm::kStaticZero:
      return round_integers({rounding.scale, static_cast<float>(rounding.zero)}, rounding.bits, x,
                            cols, out);
    case InputForm::kGroup:
      for (int64_t k = 0; k < cols; k += kFloatGroup) {
        const int64_t count = std::min(kFloatGroup, cols - k);
        const float scale = float_scale(x + k, count);
        if (scale <= kTiny) {
          std::fill_n(out + k, count, 0.f);
        } else {
          round_floats(scale, x + k, count, out + k);
        }
      }
      return;
  }
}

}  // namespace lowbit

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
  if (!has_static_inputs(scheme)) return {scheme.input_bits, scheme.input_form, 0, 0};
  return {scheme.input_bits, scheme.input_form, weight.input_scale, weight.input_zero};
}

std::string name_of(const InputRounding& rounding) {
  constexpr const char* kForms[] = {" bits a token",
                                    " bits a token with zero points",
                                    " bits, static",
                                    " bits, static with a zero point",
                                    "-bit floats a token",
                                    "-bit floats for 128 of a token",
                                    "-bit floats, static"};
  return concat(rounding.bits, kForms[static_cast<int>(rounding.form)]);
}

void round_input_values(const InputRounding& rounding, const float* x, int64_t cols, float* out) {
  if (!all_finite(x, cols)) return void(std::fill_n(out, cols, std::nanf("")));
  const auto zeros = [&](int64_t first, int64_t count) { std::fill_n(out + first, count, 0.f); };
  switch (rounding.form) {
    case InputForm::kToken: {
      std::vector<int8_t> codes(static_cast<size_t>(cols));
      const float scale = round_inputs(x, cols, rounding.bits, codes.data());
      for (int64_t k = 0; k < cols; ++k) out[k] = scale * static_cast<float>(codes[k]);
      return;
    }
    case InputForm::kTokenZero: {
      const Steps steps = range_of(x, cols, rounding.bits);
      if (steps.scale == 0) return zeros(0, cols);
      return round_integers(steps, rounding.bits, x, cols, out);
    }
    case InputForm::kStatic:
    case InputForm::kStaticZero:
      return round_integers({rounding.scale, static_cast<float>(rounding.zero)}, rounding.bits, x,
                            cols, out);
    case InputForm::kFloatToken:
    case InputForm::kFloatGroup: {
      const int64_t size = rounding.form == InputForm::kFloatToken ? cols : kFloatGroup;
      for (int64_t k = 0; k < cols; k += size) {
        const int64_t count = std::min(size, cols - k);
        const float scale = float_scale(x + k, count);
        if (scale <= kTiny) {
          zeros(k, count);
        } else {
          round_floats(scale, x + k, count, out + k);
        }
      }
      return;
    }
    case InputForm::kFloatStatic:
      return round_floats(rounding.scale, x, cols, out);
  }
}

}  // namespace lowbit

#include "lowbit/quantize/line_fit.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/vector_math.h"
#include "lowbit/quantize/grid.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

namespace {

float inverse_of(float value) {
  const float inverse = 1.f / value;
  return std::isfinite(inverse) ? inverse : 0.f;
}

}  // namespace

void weigh(const float* x, int size, float* out) {
  const float squares = sum_of(size, [&](int64_t i) { return x[i] * x[i]; });
  const float rms = std::sqrt(squares / static_cast<float>(size));
  for (int i = 0; i < size; ++i) out[i] = std::fabs(x[i]) + rms;
}

inline float LineFit::code(float x, const Line& line, float inverse) const {
  const float code = round_to_even((x + line.minimum) * inverse);
  return std::min(std::max(code, low_), high_);
}

void LineFit::encode(const Line& line, float* codes) const {
  const float inverse = inverse_of(line.scale);
  for (int i = 0; i < size_; ++i) codes[i] = code(x_[i], line, inverse);
}

float LineFit::error(const Line& line) const {
  const float inverse = inverse_of(line.scale);
  return sum_of(size_, [&](int64_t i) {
    const float difference = line.scale * code(x_[i], line, inverse) - line.minimum - x_[i];
    return importance_[i] * difference * difference;
  });
}

LineFit::Sums LineFit::sums(const float* codes) const {
  const float *x = x_, *w = importance_, *q = codes;
  const auto sum = [&](const auto& term) { return static_cast<double>(sum_of(size_, term)); };
  Sums sums;
  sums.qq = sum([&](int64_t i) { return w[i] * q[i] * q[i]; });
  sums.xq = sum([&](int64_t i) { return w[i] * q[i] * x[i]; });
  if (minimum_ == Minimum::kZero) return sums;
  sums.q1 = sum([&](int64_t i) { return w[i] * q[i]; });
  sums.ones = sum([&](int64_t i) { return w[i]; });
  sums.x1 = sum([&](int64_t i) { return w[i] * x[i]; });
  return sums;
}

// The line of least error through these codes.
Line LineFit::through(const float* codes) const {
  const Sums s = sums(codes);
  if (s.qq <= 0) return {};
  const double determinant = s.ones * s.qq - s.q1 * s.q1;
  if (determinant > 1e-12 * s.ones * s.qq) {
    const double minimum = (s.q1 * s.xq - s.qq * s.x1) / determinant;
    if (minimum_ == Minimum::kAny || minimum > 0) {
      return {static_cast<float>((s.ones * s.xq - s.x1 * s.q1) / determinant),
              static_cast<float>(minimum)};
    }
  }
  return {static_cast<float>(s.xq / s.qq), 0};
}

void LineFit::improve(const Line& guess, Line& best, float& least) const {
  float codes[kMostLineWeights];
  encode(guess, codes);
  const Line line = through(codes);
  const float error = this->error(line);
  if (error < least) {
    least = error;
    best = line;
  }
}

Line LineFit::best() const {
  const auto [smallest, largest] = std::minmax_element(x_, x_ + size_);
  if (minimum_ != Minimum::kZero) {
    const float low = minimum_ == Minimum::kAny ? *smallest : std::min(0.f, *smallest);
    const float range = *largest - low;
    Line best = {range / high_, -low};
    if (range <= 0) return best;
    float least = error(best);
    for (int step = -10; step <= 10; ++step) {
      improve({range / (high_ + 0.1f * static_cast<float>(step)), -low}, best, least);
    }
    return best;
  }
  const float extreme = -*smallest > *largest ? *smallest : *largest;
  Line best;
  if (extreme == 0) return best;
  float least = error(best);
  for (const float end : {low_, high_}) {  // the extreme weight at either end of the codes
    for (int step = -9; step <= 9; ++step) {
      improve({extreme / (end + 0.1f * static_cast<float>(step)), 0}, best, least);
    }
  }
  return best;
}

float unit_of(const float* x, int size) {
  float largest = 0;
  for (int i = 0; i < size; ++i) largest = std::max(largest, std::fabs(x[i]));
  return largest < 0x1p-60f ? 0.f : std::ldexp(1.f, std::ilogb(largest));
}

float round_to_half(float value, float unit) { return f16_to_f32(f32_to_f16(value * unit)) / unit; }

Line fit_half_line(const float* x, int size, const LineGrid& grid, const Line& plain, int* codes) {
  const float unit = unit_of(x, size);
  std::fill_n(codes, size, 0);
  if (unit == 0) return {};
  float scaled[kMostLineWeights], importance[kMostLineWeights];
  for (int i = 0; i < size; ++i) scaled[i] = x[i] / unit;
  weigh(scaled, size, importance);
  const LineFit fit(scaled, importance, size, grid);
  const auto rounded = [&](const Line& line) {
    return Line{round_to_half(line.scale, unit), round_to_half(line.minimum, unit)};
  };
  Line line = rounded(fit.best());
  const Line other = rounded({plain.scale / unit, plain.minimum / unit});
  if (!(fit.error(line) <= fit.error(other))) line = other;  // also if that is not finite
  if (std::isfinite(line.scale) && std::isfinite(line.minimum)) {
    float nearest[kMostLineWeights];
    fit.encode(line, nearest);
    for (int i = 0; i < size; ++i) codes[i] = static_cast<int>(nearest[i]);
  }
  return {line.scale * unit, line.minimum * unit};
}

}  // namespace lowbit

#include "lowbit/quantize/iq4_nl.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lowbit/base/vector_math.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/scheme.h"

namespace lowbit {

namespace {

constexpr int kBlock = 32;
constexpr int kBytes = 18;

class Fitter {
 public:
  // x: 32 weights. A block that fp16 cannot tell from zeros has scale 0.
  explicit Fitter(const float* x);
  bool store(uint8_t* out);

 private:
  void encode(float scale);
  void improve(float guess);

  float unit_ = 0;  // a power of two: x_ = x / unit_
  float x_[kBlock], importance_[kBlock];
  int codes_[kBlock] = {};
  float values_[kBlock] = {};  // of the codes, in the table
  float best_ = 0, least_ = INFINITY;
};

Fitter::Fitter(const float* x) {
  float extreme = 0;
  for (int i = 0; i < kBlock; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  if (std::fabs(extreme) < 0x1p-60f) return;
  unit_ = std::ldexp(1.f, std::ilogb(extreme));
  for (int i = 0; i < kBlock; ++i) x_[i] = x[i] / unit_;
  const float squares = sum_of(kBlock, [&](int64_t i) { return x_[i] * x_[i]; });
  const float rms = std::sqrt(squares / kBlock);
  for (int i = 0; i < kBlock; ++i) importance_[i] = std::fabs(x_[i]) + rms;
  for (const int end : {0, 15}) {  // the extreme weight near either end of the table
    for (int step = -7; step <= 7; ++step) {
      improve(extreme / unit_ / static_cast<float>(kIq4NlTable[end] + step));
    }
  }
}

// The nearest entries: counts how many midpoints lie below.
void Fitter::encode(float scale) {
  const float inverse = std::isfinite(1.f / scale) ? 1.f / scale : 0.f;
  for (int& code : codes_) code = 0;
  for (int t = 0; t < 15; ++t) {
    const float middle = 0.5f * static_cast<float>(kIq4NlTable[t] + kIq4NlTable[t + 1]);
    for (int i = 0; i < kBlock; ++i) codes_[i] += x_[i] * inverse > middle;
  }
  for (int i = 0; i < kBlock; ++i) values_[i] = kIq4NlTable[codes_[i]];
}

// Rounds to the guess, then takes the scale that fits the codes best, as fp16 holds it.
void Fitter::improve(float guess) {
  encode(guess);
  const float xv = sum_of(kBlock, [&](int64_t i) { return importance_[i] * x_[i] * values_[i]; });
  const float vv =
      sum_of(kBlock, [&](int64_t i) { return importance_[i] * values_[i] * values_[i]; });
  const float scale = f16_to_f32(f32_to_f16(xv / vv * unit_)) / unit_;
  if (!std::isfinite(scale)) {
    if (best_ == 0) best_ = scale;
    return;
  }
  encode(scale);
  const float error = sum_of(kBlock, [&](int64_t i) {
    const float difference = scale * values_[i] - x_[i];
    return importance_[i] * difference * difference;
  });
  if (!(error < least_)) return;
  least_ = error;
  best_ = scale;
}

bool Fitter::store(uint8_t* out) {
  if (unit_ != 0) encode(best_);
  const uint16_t half = f32_to_f16(best_ * unit_);
  std::memcpy(out, &half, 2);
  for (int i = 0; i < kBlock / 2; ++i) {
    out[2 + i] = static_cast<uint8_t>(codes_[i] | codes_[i + kBlock / 2] << 4);
  }
  return std::isfinite(best_);
}

}  // namespace

bool encode_iq4_nl(std::span<const float> row, uint8_t* out) {
  bool fits = true;
  for (size_t at = 0; at < row.size(); at += kBlock, out += kBytes) {
    fits &= Fitter(row.data() + at).store(out);
  }
  return fits;
}

}  // namespace lowbit

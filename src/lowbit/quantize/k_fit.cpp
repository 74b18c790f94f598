#include "lowbit/quantize/k_fit.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/vector_math.h"
#include "lowbit/quantize/grid.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

namespace {

constexpr int kRounds = 4;  // of refitting; later ones change nothing to speak of

// One level of a block: w = scale * code - minimum.
struct Line {
  float scale = 0, minimum = 0;
};

// Integers and factors of a whole block.
struct Levels {
  float d = 0, dmin = 0;  // values of fp16, times the block's unit
  int scales[kMostKGroups] = {};
  int minimums[kMostKGroups] = {};
  double error = 0;

  Line line(int group) const {
    return {d * static_cast<float>(scales[group]), dmin * static_cast<float>(minimums[group])};
  }
};

class Fitter {
 public:
  Fitter(const float* x, const KGrid& grid);
  bool fit(KBlock& block);

 private:
  const float* x(int group) const { return x_ + group * size_; }
  const float* importance(int group) const { return importance_ + group * size_; }
  float code(float x, const Line& line, float inverse) const {
    const float code = round_to_even((x + line.minimum) * inverse);
    return std::min(std::max(code, low_), high_);
  }
  void encode(int group, const Line& line);
  float error(int group, const Line& line) const;
  Line least_squares(int group) const;
  void improve(int group, const Line& guess, Line& best, float& least);
  Line guess(int group);
  float half(float value) const;
  Levels first_levels() const;
  void choose_integers(Levels& levels) const;
  void refit_factors(Levels& levels);

  const KGrid& grid_;
  int size_;  // of a group
  float low_, high_;
  float unit_ = 0;  // a power of two: x_ = x / unit_, so that nothing over- or underflows
  float x_[kKBlock], importance_[kKBlock];
  float codes_[kKBlock] = {};
  Line guesses_[kMostKGroups];
};

float inverse_of(float value) {
  const float inverse = 1.f / value;
  return std::isfinite(inverse) ? inverse : 0.f;
}

Fitter::Fitter(const float* x, const KGrid& grid)
    : grid_(grid),
      size_(kKBlock / grid.groups),
      low_(static_cast<float>(grid.code_low)),
      high_(static_cast<float>(grid.code_high)) {
  float largest = 0;
  for (int i = 0; i < kKBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
  if (largest < 0x1p-60f) return;  // far below what fp16 can tell from 0
  unit_ = std::ldexp(1.f, std::ilogb(largest));
  for (int i = 0; i < kKBlock; ++i) x_[i] = x[i] / unit_;
  for (int g = 0; g < grid.groups; ++g) {
    const float* of_group = x_ + g * size_;
    const float squares = sum_of(size_, [&](int64_t i) { return of_group[i] * of_group[i]; });
    const float rms = std::sqrt(squares / static_cast<float>(size_));
    for (int i = 0; i < size_; ++i) importance_[g * size_ + i] = std::fabs(of_group[i]) + rms;
  }
}

void Fitter::encode(int group, const Line& line) {
  const float inverse = inverse_of(line.scale);
  const float* x = this->x(group);
  float* codes = codes_ + group * size_;
  for (int i = 0; i < size_; ++i) codes[i] = code(x[i], line, inverse);
}

float Fitter::error(int group, const Line& line) const {
  const float inverse = inverse_of(line.scale);
  const float *x = this->x(group), *importance = this->importance(group);
  return sum_of(size_, [&](int64_t i) {
    const float difference = line.scale * code(x[i], line, inverse) - line.minimum - x[i];
    return importance[i] * difference * difference;
  });
}

// The line of least error through the group's codes; minimums are not negative.
Line Fitter::least_squares(int group) const {
  const float *x = this->x(group), *w = importance(group), *q = codes_ + group * size_;
  const auto sum = [&](const auto& term) { return static_cast<double>(sum_of(size_, term)); };
  const double qq = sum([&](int64_t i) { return w[i] * q[i] * q[i]; });
  const double xq = sum([&](int64_t i) { return w[i] * q[i] * x[i]; });
  if (qq <= 0) return {};
  if (grid_.minimum_high > 0) {
    const double ones = sum([&](int64_t i) { return w[i]; });
    const double q1 = sum([&](int64_t i) { return w[i] * q[i]; });
    const double x1 = sum([&](int64_t i) { return w[i] * x[i]; });
    const double determinant = ones * qq - q1 * q1;
    const double minimum = (q1 * xq - qq * x1) / determinant;
    if (determinant > 1e-12 * ones * qq && minimum > 0) {
      return {static_cast<float>((ones * xq - x1 * q1) / determinant), static_cast<float>(minimum)};
    }
  }
  return {static_cast<float>(xq / qq), 0};
}

// Rounds to the guess, fits a line through the codes, and keeps it if it is better.
void Fitter::improve(int group, const Line& guess, Line& best, float& least) {
  encode(group, guess);
  const Line line = least_squares(group);
  const float error = this->error(group, line);
  if (error < least) {
    least = error;
    best = line;
  }
}

// A group's own line, as if scales and minimums were not integers.
Line Fitter::guess(int group) {
  const float* x = this->x(group);
  const auto [smallest, largest] = std::minmax_element(x, x + size_);
  Line best;
  if (grid_.minimum_high > 0) {
    const float low = std::min(0.f, *smallest), range = *largest - low;
    best = {range / high_, -low};
    if (range <= 0) return best;
    float least = error(group, best);
    for (int step = -10; step <= 10; ++step) {
      const float steps = high_ + 0.1f * static_cast<float>(step);
      improve(group, {range / steps, -low}, best, least);
    }
    return best;
  }
  const float extreme = -*smallest > *largest ? *smallest : *largest;
  if (extreme == 0) return best;
  float least = error(group, best);
  for (const float end : {low_, high_}) {  // the extreme weight at either end of the codes
    for (int step = -9; step <= 9; ++step) {
      improve(group, {extreme / (end + 0.1f * static_cast<float>(step)), 0}, best, least);
    }
  }
  return best;
}

// To what fp16 can hold; infinite if it cannot.
float Fitter::half(float value) const { return f16_to_f32(f32_to_f16(value * unit_)) / unit_; }

// The largest scale and minimum at the ends of their integers' ranges.
Levels Fitter::first_levels() const {
  float scale = 0, minimum = 0;
  for (int g = 0; g < grid_.groups; ++g) {
    if (std::fabs(guesses_[g].scale) > std::fabs(scale)) scale = guesses_[g].scale;
    minimum = std::max(minimum, guesses_[g].minimum);
  }
  const int end = grid_.scale_low < 0 ? grid_.scale_low : grid_.scale_high;
  Levels levels;
  levels.d = half(scale / static_cast<float>(end));
  if (grid_.minimum_high > 0) {
    levels.dmin = half(minimum / static_cast<float>(grid_.minimum_high));
  }
  const float per_scale = inverse_of(levels.d), per_minimum = inverse_of(levels.dmin);
  for (int g = 0; g < grid_.groups; ++g) {
    const auto nearest = [](float value, int low, int high) {
      return std::clamp(static_cast<int>(std::lround(value)), low, high);
    };
    levels.scales[g] = nearest(guesses_[g].scale * per_scale, grid_.scale_low, grid_.scale_high);
    levels.minimums[g] = nearest(guesses_[g].minimum * per_minimum, 0, grid_.minimum_high);
  }
  choose_integers(levels);
  return levels;
}

// For each group the best of its integers and their neighbours, under the factors there are.
void Fitter::choose_integers(Levels& levels) const {
  levels.error = 0;
  for (int g = 0; g < grid_.groups; ++g) {
    const int scale = levels.scales[g], minimum = levels.minimums[g];
    int best_scale = scale, best_minimum = minimum;
    float least = error(g, levels.line(g));
    for (int s = std::max(scale - 1, grid_.scale_low); s <= std::min(scale + 1, grid_.scale_high);
         ++s) {
      for (int m = std::max(minimum - 1, 0); m <= std::min(minimum + 1, grid_.minimum_high); ++m) {
        if (s == scale && m == minimum) continue;
        const float error =
            this->error(g, {levels.d * static_cast<float>(s), levels.dmin * static_cast<float>(m)});
        if (error >= least) continue;
        least = error;
        best_scale = s;
        best_minimum = m;
      }
    }
    levels.scales[g] = best_scale;
    levels.minimums[g] = best_minimum;
    levels.error += least;
  }
}

// The factors of least error for the integers and codes there are, rounded to fp16.
void Fitter::refit_factors(Levels& levels) {
  double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
  for (int g = 0; g < grid_.groups; ++g) {
    encode(g, levels.line(g));
    const float *x = this->x(g), *w = importance(g), *q = codes_ + g * size_;
    const auto sum = [&](const auto& term) { return static_cast<double>(sum_of(size_, term)); };
    const double s = levels.scales[g], m = -levels.minimums[g];
    aa += s * s * sum([&](int64_t i) { return w[i] * q[i] * q[i]; });
    xa += s * sum([&](int64_t i) { return w[i] * q[i] * x[i]; });
    if (grid_.minimum_high == 0) continue;
    ab += s * m * sum([&](int64_t i) { return w[i] * q[i]; });
    bb += m * m * sum([&](int64_t i) { return w[i]; });
    xb += m * sum([&](int64_t i) { return w[i] * x[i]; });
  }
  const double determinant = aa * bb - ab * ab;
  if (determinant > 1e-12 * aa * bb) {
    levels.d = half(static_cast<float>((xa * bb - xb * ab) / determinant));
    levels.dmin = half(static_cast<float>((xb * aa - xa * ab) / determinant));
  } else if (aa > 0) {
    levels.d = half(static_cast<float>((xa - ab * levels.dmin) / aa));
  }
}

bool Fitter::fit(KBlock& block) {
  block = {};
  if (unit_ == 0) return true;
  for (int g = 0; g < grid_.groups; ++g) guesses_[g] = guess(g);
  Levels best = first_levels();
  if (!std::isfinite(best.d) || !std::isfinite(best.dmin)) return false;
  for (int round = 0; round < kRounds; ++round) {
    Levels next = best;
    refit_factors(next);
    if (!std::isfinite(next.d) || !std::isfinite(next.dmin)) break;
    choose_integers(next);
    if (!(next.error < best.error)) break;
    best = next;
  }
  block.d = f32_to_f16(best.d * unit_);
  block.dmin = f32_to_f16(best.dmin * unit_);
  for (int g = 0; g < grid_.groups; ++g) {
    block.scales[g] = best.scales[g];
    block.minimums[g] = best.minimums[g];
    encode(g, best.line(g));
  }
  for (int i = 0; i < kKBlock; ++i) block.codes[i] = static_cast<int>(codes_[i]);
  return true;
}

}  // namespace

bool fit_k_block(const float* x, const KGrid& grid, KBlock& block) {
  return Fitter(x, grid).fit(block);
}

}  // namespace lowbit

#include "lowbit/quantize/k_fit.h"

#include <algorithm>
#include <cmath>

#include "lowbit/quantize/line_fit.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

namespace {

constexpr int kRounds = 4;  // of refitting; later ones change nothing to speak of

// Integers and factors of a whole block.
struct Levels {
  float d = 0, dmin = 0;  // values of fp16, divided by the block's unit
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
  LineFit group(int index) const {
    return {x_ + index * size_, importance_ + index * size_, size_, lines_};
  }
  Levels first_levels() const;
  void choose_integers(Levels& levels) const;
  float choose_integers(int index, Levels& levels) const;
  void refit_factors(Levels& levels) const;

  const KGrid& grid_;
  const LineGrid lines_;
  const int size_;  // of a group
  const float unit_;
  float x_[kKBlock], importance_[kKBlock];
};

Fitter::Fitter(const float* x, const KGrid& grid)
    : grid_(grid),
      lines_{grid.code_low, grid.code_high,
             grid.minimum_high > 0 ? Minimum::kNotNegative : Minimum::kZero},
      size_(kKBlock / grid.groups),
      unit_(unit_of(x, kKBlock)) {
  if (unit_ == 0) return;
  for (int i = 0; i < kKBlock; ++i) x_[i] = x[i] / unit_;
  for (int g = 0; g < grid.groups; ++g) weigh(x_ + g * size_, size_, importance_ + g * size_);
}

// The largest scale and minimum at the ends of their integers' ranges.
Levels Fitter::first_levels() const {
  Line lines[kMostKGroups];  // of each group, as if it had factors of its own
  float scale = 0, minimum = 0;
  for (int g = 0; g < grid_.groups; ++g) {
    lines[g] = group(g).best();
    if (std::fabs(lines[g].scale) > std::fabs(scale)) scale = lines[g].scale;
    minimum = std::max(minimum, lines[g].minimum);
  }
  const int end = grid_.scale_low < 0 ? grid_.scale_low : grid_.scale_high;
  Levels levels;
  levels.d = round_to_half(scale / static_cast<float>(end), unit_);
  if (grid_.minimum_high > 0) {
    levels.dmin = round_to_half(minimum / static_cast<float>(grid_.minimum_high), unit_);
  }
  const auto nearest = [](float value, float factor, int low, int high) {
    const float steps = value / factor;  // NaN for 0 / 0
    return std::isfinite(steps) ? std::clamp(static_cast<int>(std::lround(steps)), low, high) : 0;
  };
  for (int g = 0; g < grid_.groups; ++g) {
    levels.scales[g] = nearest(lines[g].scale, levels.d, grid_.scale_low, grid_.scale_high);
    levels.minimums[g] = nearest(lines[g].minimum, levels.dmin, 0, grid_.minimum_high);
  }
  choose_integers(levels);
  return levels;
}

// For each group the best of its integers and their neighbours, under the factors there are.
void Fitter::choose_integers(Levels& levels) const {
  levels.error = 0;
  for (int g = 0; g < grid_.groups; ++g) levels.error += choose_integers(g, levels);
}

float Fitter::choose_integers(int index, Levels& levels) const {
  const LineFit fit = group(index);
  const int scale = levels.scales[index], minimum = levels.minimums[index];
  const int low = std::max(scale - 1, grid_.scale_low);
  const int high = std::min(scale + 1, grid_.scale_high);
  float least = fit.error(levels.line(index));
  for (int s = low; s <= high; ++s) {
    for (int m = std::max(minimum - 1, 0); m <= std::min(minimum + 1, grid_.minimum_high); ++m) {
      if (s == scale && m == minimum) continue;
      const float error =
          fit.error({levels.d * static_cast<float>(s), levels.dmin * static_cast<float>(m)});
      if (error >= least) continue;
      least = error;
      levels.scales[index] = s;
      levels.minimums[index] = m;
    }
  }
  return least;
}

// The factors of least error for the integers and codes there are, rounded to fp16.
void Fitter::refit_factors(Levels& levels) const {
  double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
  for (int g = 0; g < grid_.groups; ++g) {
    float codes[kMostLineWeights];
    group(g).encode(levels.line(g), codes);
    const LineFit::Sums sums = group(g).sums(codes);
    const double s = levels.scales[g], m = -levels.minimums[g];
    aa += s * s * sums.qq;
    ab += s * m * sums.q1;
    bb += m * m * sums.ones;
    xa += s * sums.xq;
    xb += m * sums.x1;
  }
  const double determinant = aa * bb - ab * ab;
  const auto half = [&](double value) { return round_to_half(static_cast<float>(value), unit_); };
  if (determinant > 1e-12 * aa * bb) {
    levels.d = half((xa * bb - xb * ab) / determinant);
    levels.dmin = half((xb * aa - xa * ab) / determinant);
  } else if (aa > 0) {
    levels.d = half((xa - ab * levels.dmin) / aa);
  }
}

bool Fitter::fit(KBlock& block) {
  block = {};
  if (unit_ == 0) return true;
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
    float codes[kMostLineWeights];
    group(g).encode(best.line(g), codes);
    for (int i = 0; i < size_; ++i) block.codes[g * size_ + i] = static_cast<int>(codes[i]);
  }
  return true;
}

}  // namespace

bool fit_k_block(const float* x, const KGrid& grid, KBlock& block) {
  return Fitter(x, grid).fit(block);
}

}  // namespace lowbit

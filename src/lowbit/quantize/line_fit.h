// Lines through a group of weights: x ~ scale * code - minimum, codes being integers of a range.
// What is minimised is the sum of importance * error^2. The importance of a weight is |x| + the
// root mean square of its group, which ggml's quantizers use for 4 and 5 bits without an importance
// matrix (ggml-quants.c).
#pragma once

#include <cstdint>

namespace lowbit {

struct Line {
  float scale = 0, minimum = 0;
};

enum class Minimum {
  kZero,         // codes of both signs
  kNotNegative,  // as K-quants store it
  kAny,
};

struct LineGrid {
  int low, high;  // codes
  Minimum minimum;
};

// out[i] = |x[i]| + root mean square of x
void weigh(const float* x, int size, float* out);

// A group and its importances, which outlive it. Sizes near 1: see unit_of().
class LineFit {
 public:
  LineFit(const float* x, const float* importance, int size, const LineGrid& grid)
      : x_(x),
        importance_(importance),
        size_(size),
        low_(static_cast<float>(grid.low)),
        high_(static_cast<float>(grid.high)),
        minimum_(grid.minimum) {}

  // The nearest codes. codes: [size]
  void encode(const Line& line, float* codes) const;
  // Of the nearest codes.
  float error(const Line& line) const;

  // Sums of importance times products of x, code q and 1.
  struct Sums {
    double qq = 0, q1 = 0, ones = 0, xq = 0, x1 = 0;
  };
  Sums sums(const float* codes) const;

  // The line of least error among those through the codes of some 20 to 40 first guesses, for which
  // the group's range takes a little more or less than all codes.
  Line best() const;

 private:
  float code(float x, const Line& line, float inverse) const;
  Line through(const float* codes) const;
  void improve(const Line& guess, Line& best, float& least) const;

  const float *x_, *importance_;
  int size_;
  float low_, high_;
  Minimum minimum_;
};

inline constexpr int kMostLineWeights = 32;

// The largest power of two in the largest magnitude; 0 if that is far below what fp16 can tell from
// 0. Weights divided by it neither over- nor underflow when squared.
float unit_of(const float* x, int size);
// value * unit rounded to fp16, divided by unit; infinite if fp16 cannot hold it.
float round_to_half(float value, float unit);

// For types that store a line a group: scale and minimum are values of fp16 whose error is no
// larger than with those of `plain`; the nearest codes go to `codes`. Infinite if fp16 cannot hold
// them. size: at most kMostLineWeights.
Line fit_half_line(const float* x, int size, const LineGrid& grid, const Line& plain, int* codes);

}  // namespace lowbit

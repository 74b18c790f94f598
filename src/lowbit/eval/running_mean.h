// Mean and its standard error over values that come one at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace lowbit {

struct RunningMean {
  int64_t count = 0;
  double sum = 0, squares = 0;

  void add(double value) {
    ++count;
    sum += value;
    squares += value * value;
  }
  double mean() const { return sum / static_cast<double>(count); }
  double standard_error() const {
    if (count < 2) return 0;
    const double variance = squares / static_cast<double>(count) - mean() * mean();
    return std::sqrt(std::max(variance, 0.0) / static_cast<double>(count - 1));
  }
};

}  // namespace lowbit

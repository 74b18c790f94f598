#include "lowbit/report/axis.h"

#include <algorithm>
#include <cmath>

namespace lowbit {

void Axis::cover(double value) {
  if (!shows(value)) return;
  min_ = any_ ? std::min(min_, value) : value;
  max_ = any_ ? std::max(max_, value) : value;
  any_ = true;
}

void Axis::finish() {
  if (!any_) min_ = log_ ? 1 : 0, max_ = log_ ? 10 : 1;
  log_ ? finish_log() : finish_linear();
}

void Axis::finish_log() {
  if (!tight_) {
    min_ = std::pow(10, std::floor(std::log10(min_)));
    max_ = std::pow(10, std::ceil(std::log10(max_)));
    if (max_ <= min_) max_ = min_ * 10;
    for (double tick = min_; tick <= max_ * 1.0001; tick *= 10) ticks_.push_back(tick);
    return;
  }
  const double margin = std::max(std::pow(max_ / min_, 0.06), 1.05);
  min_ /= margin;
  max_ *= margin;
  // 1, 2 and 5 of every decade; of a range within one, more of them.
  const bool narrow = max_ / min_ < 8;
  for (double power = std::pow(10, std::floor(std::log10(min_))); power <= max_; power *= 10) {
    for (const double digit : {1., 1.5, 2., 3., 4., 5., 6., 8.}) {
      if (!narrow && digit != 1 && digit != 2 && digit != 5) continue;
      const double tick = digit * power;
      if (tick >= min_ && tick <= max_) ticks_.push_back(tick);
    }
  }
}

void Axis::finish_linear() {
  if (tight_) {
    const double margin = max_ > min_ ? 0.08 * (max_ - min_) : std::max(std::fabs(max_), 1.0) / 10;
    min_ = min_ >= 0 ? std::max(min_ - margin, 0.0) : min_ - margin;
    max_ += margin;
  } else {
    min_ = std::min(min_, 0.0);
  }
  if (max_ <= min_) max_ = min_ + 1;
  const double rough = (max_ - min_) / 6, power = std::pow(10, std::floor(std::log10(rough)));
  const double digit = rough / power;
  // Four to eight ticks on a tight axis; one that is rounded outwards needs fewer.
  const double step = power * (tight_ ? (digit > 7     ? 10
                                         : digit > 3.5 ? 5
                                         : digit > 1.5 ? 2
                                                       : 1)
                                      : (digit > 5   ? 10
                                         : digit > 2 ? 5
                                                     : 2));
  if (!tight_) {
    min_ = std::floor(min_ / step) * step;
    max_ = std::ceil(max_ / step) * step;
  }
  const double first = std::ceil(min_ / step - 1e-9), last = std::floor(max_ / step + 1e-9);
  // Adding the step again and again would gather errors; adding 0 makes -0 a 0.
  for (double i = first; i <= last; ++i) ticks_.push_back(i * step + 0.0);
}

bool Axis::shows(double value) const { return std::isfinite(value) && (!log_ || value > 0); }

double Axis::at(double value) const {
  const double part =
      log_ ? std::log(value / min_) / std::log(max_ / min_) : (value - min_) / (max_ - min_);
  return from_ + part * (to_ - from_);
}

}  // namespace lowbit

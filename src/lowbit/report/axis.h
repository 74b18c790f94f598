// One axis of a plot: values to pixels, and where its ticks stand.
#pragma once

#include <vector>

namespace lowbit {

class Axis {
 public:
  // From pixel `from` to pixel `to`. A tight one ends near its data; otherwise a linear one
  // includes zero and a logarithmic one ends at powers of ten.
  Axis(bool log, bool tight, double from, double to)
      : log_(log), tight_(tight), from_(from), to_(to) {}

  void cover(double value);  // ignored if not shows()
  void finish();             // after the last cover(): chooses the range and the ticks
  bool shows(double value) const;
  double at(double value) const;
  const std::vector<double>& ticks() const { return ticks_; }

 private:
  void finish_linear();
  void finish_log();

  bool log_, tight_, any_ = false;
  double from_, to_;
  double min_ = 0, max_ = 1;
  std::vector<double> ticks_;
};

}  // namespace lowbit

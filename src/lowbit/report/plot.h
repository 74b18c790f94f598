// A line and point chart as SVG.
#pragma once

#include <string>
#include <vector>

namespace lowbit {

struct PlotPoint {
  double x = 0;
  double y = 0;
};

// Drawn as a line through its points, or as marks alone.
struct PlotSeries {
  std::string name;  // in the legend; empty: not listed
  std::vector<PlotPoint> points;
  bool line = true;
  bool dashed = false;
  std::vector<std::string> labels;  // empty, or one for each point, shown when pointed at
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_x = false;
  bool log_y = false;
  std::vector<PlotSeries> series;

  // A standalone SVG document. Points that are not finite, or not positive on a logarithmic axis,
  // are left out. Throws kInvalidArgument if labels do not match points.
  std::string svg() const;
};

}  // namespace lowbit

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
  bool show_labels = false;         // beside the points too, where there is room
  int color = -1;                   // of the palette; -1: the series' place
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_x = false;
  bool log_y = false;
  std::vector<PlotSeries> series;
  bool tight = false;     // axes end near the data, not at zero or a power of ten
  bool embedded = false;  // in a page that has title and legend of its own: smaller, larger text

  // A standalone SVG document whose parts have classes ("grid", "axis", "c0", ...), so that the
  // style of a page that holds it may recolor them. Points that are not finite, or not positive on
  // a logarithmic axis, are left out. Throws kInvalidArgument if labels do not match points.
  std::string svg() const;
};

constexpr int kPlotColors = 10;
// "#0072b2"; indices beyond kPlotColors begin again.
const char* plot_color(int index);
// &, <, >, " and ' as entities: for text and attributes of SVG and HTML.
std::string escape_markup(const std::string& text);

}  // namespace lowbit

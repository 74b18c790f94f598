#include "lowbit/report/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "lowbit/base/check.h"
#include "lowbit/report/axis.h"
#include "lowbit/report/table.h"

namespace lowbit {

namespace {

constexpr const char* kColors[kPlotColors] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                              "#56b4e9", "#e69f00", "#555555", "#8c564b",
                                              "#7b3294", "#a6761d"};
constexpr double kRadius = 4.5;  // of a point

// Where things stand, in pixels of the drawing's own.
struct Layout {
  double width, height;
  double left, right, top, bottom;  // of the field between the axes
  double font;
};
constexpr Layout kDocument = {960, 560, 80, 710, 48, 496, 12};
constexpr Layout kEmbedded = {640, 420, 68, 624, 14, 362, 14};

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", value);
  return text;
}

std::string text_at(double x, double y, const char* anchor, const std::string& text,
                    const std::string& more = "") {
  return concat("<text x=\"", fixed(x, 1), "\" y=\"", fixed(y, 1), "\" text-anchor=\"", anchor,
                "\"", more, ">", escape_markup(text), "</text>\n");
}

std::string line_from(double x1, double y1, double x2, double y2, const std::string& style) {
  return concat("<line x1=\"", fixed(x1, 1), "\" y1=\"", fixed(y1, 1), "\" x2=\"", fixed(x2, 1),
                "\" y2=\"", fixed(y2, 1), "\" ", style, "/>\n");
}

// A rectangle that a label or a point takes.
struct Box {
  double x1, y1, x2, y2;

  bool meets(const Box& other) const {
    return x1 < other.x2 && other.x1 < x2 && y1 < other.y2 && other.y1 < y2;
  }
};

class Drawing {
 public:
  explicit Drawing(const Plot& plot)
      : plot_(plot),
        layout_(plot.embedded ? kEmbedded : kDocument),
        x_(plot.log_x, plot.tight, layout_.left, layout_.right),
        y_(plot.log_y, plot.tight, layout_.bottom, layout_.top) {
    for (const PlotSeries& one : plot.series) {
      LOWBIT_CHECK(one.labels.empty() || one.labels.size() == one.points.size(), "plot: series \"",
                   one.name, "\" has ", one.points.size(), " points and ", one.labels.size(),
                   " labels");
      for (const PlotPoint& point : one.points) {
        if (!shows(point)) continue;
        x_.cover(point.x);
        y_.cover(point.y);
      }
    }
    x_.finish();
    y_.finish();
  }

  std::string svg() {
    std::string out =
        concat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", layout_.width, " ",
               layout_.height, "\" role=\"img\" aria-label=\"", escape_markup(plot_.title),
               "\" font-family=\"sans-serif\" font-size=\"", layout_.font, "\" fill=\"#222222\">\n",
               "<rect class=\"paper\" width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n", axes());
    for (size_t i = 0; i < plot_.series.size(); ++i) {
      out += series(plot_.series[i], paint(i));
      if (!plot_.embedded && !plot_.series[i].name.empty()) out += legend(i);
    }
    return out + labels() + "</svg>\n";
  }

 private:
  // The attributes that color a line or a mark.
  struct Paint {
    std::string line, mark;
  };
  Paint paint(size_t index) const {
    const int chosen = plot_.series[index].color;
    const int color = chosen >= 0 ? chosen : static_cast<int>(index);
    const std::string name = concat("class=\"c", color % kPlotColors, "\" ");
    // The colors begin again: a dash tells the second turn from the first.
    const bool dashed = plot_.series[index].dashed || (color / kPlotColors) % 2 == 1;
    const char* hex = plot_color(color);
    return {concat(name, "stroke-width=\"2\" stroke=\"", hex, "\"",
                   dashed ? " stroke-dasharray=\"6 4\"" : ""),
            concat(name, "fill=\"", hex, "\"")};
  }

  bool shows(const PlotPoint& point) const { return x_.shows(point.x) && y_.shows(point.y); }

  std::string axes() const {
    const auto& [width, height, left, right, top, bottom, font] = layout_;
    const std::string grid = "class=\"grid\" stroke=\"#e4e4e4\"";
    const std::string axis = "class=\"axis\" stroke=\"#333333\"";
    std::string out;
    for (const double tick : x_.ticks()) {
      out += line_from(x_.at(tick), top, x_.at(tick), bottom, grid);
      out += text_at(x_.at(tick), bottom + 1.5 * font, "middle", number(tick));
    }
    for (const double tick : y_.ticks()) {
      out += line_from(left, y_.at(tick), right, y_.at(tick), grid);
      out += text_at(left - 8, y_.at(tick) + font / 3, "end", number(tick));
    }
    out += line_from(left, bottom, right, bottom, axis);
    out += line_from(left, top, left, bottom, axis);
    out += text_at((left + right) / 2, bottom + 3.4 * font, "middle", plot_.x_label);
    const double middle = (top + bottom) / 2;
    out += text_at(
        1.4 * font, middle, "middle", plot_.y_label,
        concat(" transform=\"rotate(-90 ", fixed(1.4 * font, 1), " ", fixed(middle, 1), ")\""));
    if (!plot_.embedded) {
      out += text_at(left, 28, "start", plot_.title, " font-size=\"16\" font-weight=\"bold\"");
    }
    return out;
  }

  std::string series(const PlotSeries& series, const Paint& paint) {
    std::string path, marks;
    for (size_t i = 0; i < series.points.size(); ++i) {
      const PlotPoint& point = series.points[i];
      if (!shows(point)) continue;
      const double x = x_.at(point.x), y = y_.at(point.y);
      path += concat(path.empty() ? "" : " ", fixed(x, 1), ",", fixed(y, 1));
      if (series.line) continue;
      const std::string label = series.labels.empty() ? series.name : series.labels[i];
      marks += concat("<circle cx=\"", fixed(x, 1), "\" cy=\"", fixed(y, 1), "\" r=\"", kRadius,
                      "\" ", paint.mark, " fill-opacity=\"0.85\"><title>", escape_markup(label),
                      ": ", number(point.x), ", ", number(point.y), "</title></circle>\n");
      taken_.push_back({x - kRadius, y - kRadius, x + kRadius, y + kRadius});
      if (series.show_labels) wanted_.push_back({x, y, label});
    }
    if (!series.line) return marks;
    return concat("<polyline points=\"", path, "\" ", paint.line, " fill=\"none\"><title>",
                  escape_markup(series.name), "</title></polyline>\n");
  }

  // Names beside their points: the first place around it that is free; none if there is none, as
  // the name is still there when one points at it.
  std::string labels() {
    const double font = layout_.font, gap = kRadius + 3;
    std::string out;
    for (const auto& [x, y, label] : wanted_) {
      const double width = 0.58 * font * static_cast<double>(label.size());
      const std::array<PlotPoint, 8> corners = {{{x + gap, y - font / 2},
                                                 {x - gap - width, y - font / 2},
                                                 {x - width / 2, y - gap - font},
                                                 {x - width / 2, y + gap},
                                                 {x + gap, y - gap - font},
                                                 {x + gap, y + gap},
                                                 {x - gap - width, y - gap - font},
                                                 {x - gap - width, y + gap}}};
      for (const PlotPoint& corner : corners) {
        const Box box = {corner.x, corner.y, corner.x + width, corner.y + font};
        const bool inside = box.x1 >= layout_.left && box.x2 <= layout_.width - 2 && box.y1 >= 0 &&
                            box.y2 <= layout_.bottom;
        if (!inside || std::any_of(taken_.begin(), taken_.end(),
                                   [&](const Box& other) { return box.meets(other); })) {
          continue;
        }
        taken_.push_back(box);
        out += text_at(box.x1, box.y1 + 0.85 * font, "start", label);
        break;
      }
    }
    return out;
  }

  std::string legend(size_t index) {
    const double left = layout_.right + 16, row = layout_.top + 12 + 20 * legend_rows_++;
    const PlotSeries& series = plot_.series[index];
    const std::string symbol =
        series.line ? line_from(left, row - 4, left + 22, row - 4, paint(index).line)
                    : concat("<circle cx=\"", fixed(left + 11, 1), "\" cy=\"", fixed(row - 4, 1),
                             "\" r=\"", kRadius, "\" ", paint(index).mark, "/>\n");
    return symbol + text_at(left + 30, row, "start", series.name);
  }

  struct Label {
    double x, y;  // of the point
    std::string text;
  };

  const Plot& plot_;
  Layout layout_;
  Axis x_, y_;
  std::vector<Box> taken_;
  std::vector<Label> wanted_;
  int legend_rows_ = 0;
};

}  // namespace

const char* plot_color(int index) { return kColors[index % kPlotColors]; }

std::string escape_markup(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string Plot::svg() const { return Drawing(*this).svg(); }

}  // namespace lowbit

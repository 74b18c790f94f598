#include "lowbit/report/plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "lowbit/base/check.h"
#include "lowbit/report/table.h"

namespace lowbit {

namespace {

constexpr double kWidth = 960, kHeight = 560;
constexpr double kLeft = 80, kRight = 250, kTop = 48, kBottom = 64;
constexpr const char* kColors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9",
                                   "#e69f00", "#555555", "#8c564b", "#7b3294", "#a6761d"};

std::string escape(const std::string& text) {
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
      default:
        out += c;
    }
  }
  return out;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", value);
  return text;
}

// One axis: values to pixels, and where its ticks stand.
class Axis {
 public:
  Axis(bool log, double from, double to) : log_(log), from_(from), to_(to) {}

  void cover(double value) {
    if (!shows(value)) return;
    min_ = any_ ? std::min(min_, value) : value;
    max_ = any_ ? std::max(max_, value) : value;
    any_ = true;
  }

  // Rounds the covered range outwards.
  void finish() {
    if (!any_) min_ = log_ ? 1 : 0, max_ = log_ ? 10 : 1;
    if (log_) {
      min_ = std::pow(10, std::floor(std::log10(min_)));
      max_ = std::pow(10, std::ceil(std::log10(max_)));
      if (max_ <= min_) max_ = min_ * 10;
      for (double tick = min_; tick <= max_ * 1.0001; tick *= 10) ticks_.push_back(tick);
      return;
    }
    min_ = std::min(min_, 0.0);
    if (max_ <= min_) max_ = min_ + 1;
    const double rough = (max_ - min_) / 6, power = std::pow(10, std::floor(std::log10(rough)));
    const double step = power * (rough > 5 * power ? 10 : rough > 2 * power ? 5 : 2);
    min_ = std::floor(min_ / step) * step;
    max_ = std::ceil(max_ / step) * step;
    for (int i = 0; min_ + i * step <= max_ + step / 2; ++i) ticks_.push_back(min_ + i * step);
  }

  bool shows(double value) const { return std::isfinite(value) && (!log_ || value > 0); }
  double at(double value) const {
    const double part =
        log_ ? std::log(value / min_) / std::log(max_ / min_) : (value - min_) / (max_ - min_);
    return from_ + part * (to_ - from_);
  }
  const std::vector<double>& ticks() const { return ticks_; }

 private:
  bool log_, any_ = false;
  double from_, to_;  // pixels
  double min_ = 0, max_ = 1;
  std::vector<double> ticks_;
};

std::string text_at(double x, double y, const char* anchor, const std::string& text,
                    const std::string& more = "") {
  return concat("<text x=\"", fixed(x, 1), "\" y=\"", fixed(y, 1), "\" text-anchor=\"", anchor,
                "\"", more, ">", escape(text), "</text>\n");
}

std::string line_from(double x1, double y1, double x2, double y2, const std::string& style) {
  return concat("<line x1=\"", fixed(x1, 1), "\" y1=\"", fixed(y1, 1), "\" x2=\"", fixed(x2, 1),
                "\" y2=\"", fixed(y2, 1), "\" ", style, "/>\n");
}

std::string draw_axes(const Plot& plot, const Axis& x, const Axis& y) {
  const double right = kWidth - kRight, bottom = kHeight - kBottom;
  std::string out;
  for (const double tick : x.ticks()) {
    out += line_from(x.at(tick), kTop, x.at(tick), bottom, "stroke=\"#e4e4e4\"");
    out += text_at(x.at(tick), bottom + 18, "middle", number(tick));
  }
  for (const double tick : y.ticks()) {
    out += line_from(kLeft, y.at(tick), right, y.at(tick), "stroke=\"#e4e4e4\"");
    out += text_at(kLeft - 8, y.at(tick) + 4, "end", number(tick));
  }
  out += line_from(kLeft, bottom, right, bottom, "stroke=\"#333333\"");
  out += line_from(kLeft, kTop, kLeft, bottom, "stroke=\"#333333\"");
  out += text_at((kLeft + right) / 2, bottom + 44, "middle", plot.x_label);
  const double middle = (kTop + bottom) / 2;
  out += text_at(20, middle, "middle", plot.y_label,
                 concat(" transform=\"rotate(-90 20 ", fixed(middle, 1), ")\""));
  out += text_at(kLeft, 28, "start", plot.title, " font-size=\"16\" font-weight=\"bold\"");
  return out;
}

std::string draw_series(const PlotSeries& series, const Axis& x, const Axis& y,
                        const std::string& color) {
  std::string path, marks;
  for (size_t i = 0; i < series.points.size(); ++i) {
    const PlotPoint& point = series.points[i];
    if (!x.shows(point.x) || !y.shows(point.y)) continue;
    const std::string px = fixed(x.at(point.x), 1), py = fixed(y.at(point.y), 1);
    path += concat(path.empty() ? "" : " ", px, ",", py);
    if (series.line) continue;
    const std::string label = series.labels.empty() ? series.name : series.labels[i];
    marks += concat("<circle cx=\"", px, "\" cy=\"", py, "\" r=\"4\" fill=\"", color,
                    "\" fill-opacity=\"0.75\"><title>", escape(label), ": ", number(point.x), ", ",
                    number(point.y), "</title></circle>\n");
  }
  if (!series.line) return marks;
  return concat("<polyline points=\"", path, "\" fill=\"none\" stroke-width=\"2\" stroke=\"", color,
                "\"", series.dashed ? " stroke-dasharray=\"6 4\"" : "", "/>\n");
}

std::string draw_legend(const PlotSeries& series, double row, const std::string& color) {
  const double left = kWidth - kRight + 16;
  const std::string symbol =
      series.line ? line_from(left, row - 4, left + 22, row - 4,
                              concat("stroke-width=\"2\" stroke=\"", color, "\"",
                                     series.dashed ? " stroke-dasharray=\"6 4\"" : ""))
                  : concat("<circle cx=\"", fixed(left + 11, 1), "\" cy=\"", fixed(row - 4, 1),
                           "\" r=\"4\" fill=\"", color, "\"/>\n");
  return symbol + text_at(left + 30, row, "start", series.name);
}

}  // namespace

std::string Plot::svg() const {
  Axis x(log_x, kLeft, kWidth - kRight), y(log_y, kHeight - kBottom, kTop);
  for (const PlotSeries& one : series) {
    LOWBIT_CHECK(one.labels.empty() || one.labels.size() == one.points.size(), "plot: series \"",
                 one.name, "\" has ", one.points.size(), " points and ", one.labels.size(),
                 " labels");
    for (const PlotPoint& point : one.points) {
      if (!x.shows(point.x) || !y.shows(point.y)) continue;
      x.cover(point.x);
      y.cover(point.y);
    }
  }
  x.finish();
  y.finish();
  std::string out =
      concat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", kWidth, " ", kHeight,
             "\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222222\">\n",
             "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n", draw_axes(*this, x, y));
  double row = kTop + 12;
  for (size_t i = 0; i < series.size(); ++i) {
    const std::string color = kColors[i % std::size(kColors)];
    out += draw_series(series[i], x, y, color);
    if (series[i].name.empty()) continue;
    out += draw_legend(series[i], row, color);
    row += 20;
  }
  return out + "</svg>\n";
}

}  // namespace lowbit

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/report/comparison.h"
#include "lowbit/report/comparison_columns.h"
#include "lowbit/report/comparison_page.h"
#include "lowbit/report/plot.h"
#include "lowbit/report/table.h"

namespace lowbit {

namespace {

using Better = ComparisonColumn::Better;

std::string tag(const char* name, const std::string& text, const std::string& attributes = "") {
  return concat("<", name, attributes.empty() ? "" : " ", attributes, ">", escape_markup(text),
                "</", name, ">");
}

// Table ----------------------------------------------------------------------------------------

// The best value of a column among the rows that are not the source, if there are several.
double best_of(const Comparison& comparison, const ComparisonColumn& column) {
  double best = kNotMeasured;
  int values = 0;
  for (const ComparisonRow& row : comparison.rows) {
    if (row.source || column.better == Better::kNone) continue;
    const double value = column.value(comparison, row);
    if (!std::isfinite(value)) continue;
    ++values;
    const bool better = column.better == Better::kLess ? value < best : value > best;
    if (std::isnan(best) || better) best = value;
  }
  return values > 1 ? best : kNotMeasured;
}

std::string header_cell(const ComparisonColumn& column) {
  return concat("<th scope=\"col\"", column.numeric() ? " class=\"number\"" : "", " title=\"",
                escape_markup(column.meaning), "\"><button type=\"button\">",
                escape_markup(column.header), "</button></th>");
}

std::string name_cell(const ComparisonRow& row, size_t index) {
  std::string cell =
      concat("<th scope=\"row\" data-sort=\"", escape_markup(row.name), "\"><i class=\"dot b",
             index % kPlotColors, "\"></i>", escape_markup(row.name));
  const std::string more = row.source ? "source" : row.description;
  if (!more.empty()) cell += tag("small", more);
  return cell + "</th>";
}

std::string body_cell(const Comparison& comparison, const ComparisonRow& row,
                      const ComparisonColumn& column, double best) {
  const std::string text = column.cell(comparison, row);
  if (!column.numeric()) return tag("td", text, "class=\"words\"");
  const double value = column.value(comparison, row);
  const bool is_best = !row.source && std::isfinite(best) && value == best;
  return tag("td", text,
             concat("class=\"number", is_best ? " best" : "", "\" data-sort=\"",
                    std::isfinite(value) ? concat(value) : "", "\""));
}

std::string results_table(const Comparison& comparison) {
  std::vector<const ComparisonColumn*> columns;
  for (const ComparisonColumn& column : comparison_columns()) {
    if (!column.empty(comparison)) columns.push_back(&column);
  }
  std::string out = "<div class=\"scroll\"><table id=\"results\">\n<thead><tr>";
  for (const auto* column : columns) out += header_cell(*column);
  out += "</tr></thead>\n<tbody>\n";
  std::vector<double> best;
  for (const auto* column : columns) best.push_back(best_of(comparison, *column));
  for (size_t i = 0; i < comparison.rows.size(); ++i) {
    const ComparisonRow& row = comparison.rows[i];
    out += concat("<tr",
                  row.source   ? " class=\"source\""
                  : row.failed ? " class=\"failed\""
                               : "",
                  ">", name_cell(row, i));
    for (size_t c = 1; c < columns.size(); ++c) {
      out += body_cell(comparison, row, *columns[c], best[c]);
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string notes(const Comparison& comparison) {
  std::string items;
  for (const ComparisonRow& row : comparison.rows) {
    for (const std::string& note : row.notes) {
      items += concat("<li>", tag("b", row.name), ": ", escape_markup(note), "</li>\n");
    }
  }
  return items.empty() ? "" : concat("<ul class=\"notes\">\n", items, "</ul>\n");
}

// Plots ----------------------------------------------------------------------------------------

bool spans(const std::vector<double>& values, double factor) {
  double least = INFINITY, most = 0;
  for (const double value : values) {
    if (!std::isfinite(value) || value <= 0) continue;
    least = std::min(least, value);
    most = std::max(most, value);
  }
  return most > factor * least;
}

// One mark for each row, named.
template <typename Value>
Plot scatter(const Comparison& comparison, const char* title, const char* y_label,
             const Value& value) {
  Plot plot;
  plot.title = title;
  plot.x_label = "file, MiB";
  plot.y_label = y_label;
  plot.tight = plot.embedded = true;
  std::vector<double> values;
  for (size_t i = 0; i < comparison.rows.size(); ++i) {
    const ComparisonRow& row = comparison.rows[i];
    PlotSeries series;
    series.name = row.name;
    series.points = {{row.file_mib, value(row)}};
    series.labels = {row.name};
    series.line = false;
    series.show_labels = true;
    series.color = static_cast<int>(i);
    values.push_back(value(row));
    plot.series.push_back(std::move(series));
  }
  plot.log_y = spans(values, 4);
  return plot;
}

// The rows that no other row beats in both size and perplexity, from small to large.
PlotSeries pareto_line(const Comparison& comparison) {
  std::vector<PlotPoint> points;
  for (const ComparisonRow& row : comparison.rows) {
    if (std::isfinite(row.file_mib) && std::isfinite(row.perplexity)) {
      points.push_back({row.file_mib, row.perplexity});
    }
  }
  std::sort(points.begin(), points.end(), [](const PlotPoint& a, const PlotPoint& b) {
    return a.x != b.x ? a.x < b.x : a.y < b.y;
  });
  PlotSeries line;
  line.name = "Pareto line";
  line.dashed = true;
  line.color = 6;
  for (const PlotPoint& point : points) {
    if (line.points.empty() || point.y < line.points.back().y) line.points.push_back(point);
  }
  return line;
}

Plot layer_plot(const Comparison& comparison) {
  Plot plot;
  plot.title = "Error per layer";
  plot.x_label = "block";
  plot.y_label = "relative error of weights";
  plot.tight = plot.embedded = true;
  std::vector<double> values;
  for (size_t i = 0; i < comparison.rows.size(); ++i) {
    const ComparisonRow& row = comparison.rows[i];
    if (row.block_errors.empty()) continue;
    PlotSeries series;
    series.name = row.name;
    series.color = static_cast<int>(i);
    for (size_t block = 0; block < row.block_errors.size(); ++block) {
      series.points.push_back({static_cast<double>(block), row.block_errors[block]});
    }
    values.insert(values.end(), row.block_errors.begin(), row.block_errors.end());
    plot.series.push_back(std::move(series));
  }
  plot.log_y = spans(values, 8);
  return plot;
}

// The rows' names with their colors, for plots that cannot name lines where they are.
std::string legend(const Comparison& comparison) {
  std::string items;
  for (size_t i = 0; i < comparison.rows.size(); ++i) {
    if (comparison.rows[i].block_errors.empty()) continue;
    const bool dashed = (i / kPlotColors) % 2 == 1;
    items += concat("<li><i class=\"dot b", i % kPlotColors, dashed ? " dashed" : "", "\"></i>",
                    escape_markup(comparison.rows[i].name), "</li>");
  }
  return concat("<ul class=\"legend\">", items, "</ul>");
}

bool drawn(const Plot& plot) {
  size_t points = 0;
  for (const PlotSeries& series : plot.series) {
    for (const PlotPoint& point : series.points) {
      points += std::isfinite(point.x) && std::isfinite(point.y) ? 1 : 0;
    }
  }
  return points > 1;
}

std::string figure(const Plot& plot, const char* note, const std::string& more = "") {
  if (!drawn(plot)) return "";
  return concat("<figure>", tag("figcaption", plot.title), plot.svg(), more,
                *note == '\0' ? "" : tag("p", note), "</figure>\n");
}

std::string figures(const Comparison& comparison) {
  Plot quality = scatter(comparison, "Perplexity against size", "perplexity",
                         [](const ComparisonRow& row) { return row.perplexity; });
  quality.series.insert(quality.series.begin(), pareto_line(comparison));
  const Plot divergence = scatter(comparison, "Divergence against size", "mean KL, nats",
                                  [](const ComparisonRow& row) { return row.kl; });
  const Plot decode = scatter(comparison, "Decode speed against size", "tokens per second",
                              [](const ComparisonRow& row) { return row.decode_tok_s; });
  const Plot prefill = scatter(comparison, "Prefill speed against size", "tokens per second",
                               [](const ComparisonRow& row) { return row.prefill_tok_s; });
  return concat(
      "<section class=\"figures\">\n",
      figure(quality,
             "Lower left is better. On the dashed Pareto line: no other row is both smaller "
             "and better."),
      figure(divergence, "Lower left is better."),
      figure(layer_plot(comparison),
             "‖W − W′‖ / ‖W‖ against the source, root mean square over a block's linear layers.",
             legend(comparison)),
      figure(decode, "Upper left is better."), figure(prefill, "Upper left is better."),
      "</section>\n");
}

std::string conditions(const Comparison& comparison) {
  std::string items;
  for (const auto& [name, value] : comparison.conditions) {
    items += concat("<div>", tag("dt", name), tag("dd", value), "</div>\n");
  }
  return items.empty() ? "" : concat("<dl>\n", items, "</dl>\n");
}

// Rules for what carries a row's color: lines and marks of plots, dots of the table.
std::string color_rules() {
  std::string out;
  for (int i = 0; i < kPlotColors; ++i) {
    out += concat(".dot.b", i, "{background:", plot_color(i), "}");
  }
  return out;
}

}  // namespace

std::string comparison_html(const Comparison& comparison) {
  return concat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
      "<meta name=\"color-scheme\" content=\"light dark\">\n",
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; script-src 'unsafe-inline'\">\n",
      tag("title", comparison.title), "\n<style>\n", color_rules(), kComparisonStyle,
      "</style>\n</head>\n<body>\n<main>\n<header>\n", tag("h1", comparison.title),
      comparison.description.empty() ? "" : tag("p", comparison.description), "</header>\n",
      results_table(comparison), notes(comparison), figures(comparison),
      "<footer>\n<h2>How it was measured</h2>\n", conditions(comparison),
      "</footer>\n</main>\n<script>\n", kComparisonScript, "</script>\n</body>\n</html>\n");
}

}  // namespace lowbit

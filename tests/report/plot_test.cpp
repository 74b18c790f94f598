#include "lowbit/report/plot.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"

namespace lowbit {
namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Plot, DrawsLinesPointsAndALegend) {
  Plot plot{"speed", "tokens", "GB/s", true, true, {}};
  plot.series.push_back({"roof", {{1, 10}, {100, 1000}}, true, true, {}});
  plot.series.push_back({"layers", {{10, 50}}, false, false, {"down_proj"}});
  const std::string svg = plot.svg();
  EXPECT_TRUE(contains(svg, "<svg "));
  EXPECT_TRUE(contains(svg, "<polyline"));
  EXPECT_TRUE(contains(svg, "stroke-dasharray"));
  EXPECT_TRUE(contains(svg, "<title>down_proj: 10, 50</title>"));
  EXPECT_TRUE(contains(svg, ">layers</text>"));
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
}

TEST(Plot, EscapesText) {
  Plot plot{"a < b & \"c\"", "", "", false, false, {}};
  EXPECT_TRUE(contains(plot.svg(), "a &lt; b &amp; &quot;c&quot;"));
}

TEST(Plot, LeavesOutWhatAnAxisCannotShow) {
  Plot plot{"", "", "", true, true, {}};
  plot.series.push_back({"s", {{0, 1}, {1, -1}, {1, std::nan("")}, {2, 3}}, false, false, {}});
  const std::string svg = plot.svg();
  EXPECT_FALSE(contains(svg, "nan"));
  EXPECT_FALSE(contains(svg, "inf"));
  EXPECT_EQ(svg.find("<title>"), svg.rfind("<title>"));
}

TEST(Plot, RefusesLabelsThatDoNotMatch) {
  Plot plot;
  plot.series.push_back({"s", {{1, 1}}, false, false, {"a", "b"}});
  EXPECT_THROW(plot.svg(), Error);
}

}  // namespace
}  // namespace lowbit

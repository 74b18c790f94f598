#include "lowbit/base/trace.h"

#include <gtest/gtest.h>

#include <map>

#include "lowbit/base/json.h"
#include "lowbit/base/thread_pool.h"

namespace lowbit {
namespace {

// Spans by name, after checking each event's form.
std::map<std::string, int> spans_of(const std::string& text) {
  std::map<std::string, int> spans;
  const Json trace = parse_json(text, "trace");
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == "M") continue;
    EXPECT_EQ(event["ph"], "X");
    EXPECT_GE(event["ts"].get<double>(), 0);
    EXPECT_GE(event["dur"].get<double>(), 0);
    ++spans[event["name"].get<std::string>()];
  }
  return spans;
}

TEST(Trace, HoldsTheSharesOfLoopsAndSpansThatWereMeantToBeSeen) {
  ThreadPool pool(2);
  const char* name = trace::label("q4 \"3x5\"");
  EXPECT_EQ(trace::label("q4 \"3x5\""), name);
  { const trace::Span early("before the start"); }
  trace::start();
  for (int i = 0; i < 10; ++i) {
    pool.parallel_for(
        100, [](int64_t, int) {}, name);
  }
  pool.parallel_for(
      1, [](int64_t, int) {}, "alone");
  pool.parallel_for(
      0, [](int64_t, int) {}, "nothing to do");
  pool.parallel_for(2, [](int64_t, int) {});
  { const trace::Span span("a span"); }
  const std::map<std::string, int> spans = spans_of(trace::finish());
  EXPECT_EQ(spans.size(), 3u);
  EXPECT_GE(spans.at("q4 \"3x5\""), 10);
  EXPECT_LE(spans.at("q4 \"3x5\""), 20);
  EXPECT_EQ(spans.at("alone"), 1);
  EXPECT_EQ(spans.at("a span"), 1);
  EXPECT_FALSE(trace::on());
}

TEST(Trace, HasRowsForWhatIsNoThreadAndAsksForThemAtTheEnd) {
  trace::start();
  trace::add_span("gpu", "early", 1000, 2000);
  trace::before_finish([] { trace::add_span("gpu", "late", 3000, 4500); });
  const Json trace = parse_json(trace::finish(), "trace");
  std::map<std::string, Json> spans;
  for (const Json& event : trace["traceEvents"]) {
    spans[event["ph"] == "M" ? "row" : event["name"].get<std::string>()] = event;
  }
  EXPECT_EQ(spans.at("row")["args"]["name"], "gpu");  // the last
  EXPECT_EQ(spans.at("early")["tid"], spans.at("late")["tid"]);
  EXPECT_EQ(spans.at("late")["ts"].get<double>(), 2.0);
  EXPECT_EQ(spans.at("late")["dur"].get<double>(), 1.5);
  trace::start();
  EXPECT_TRUE(spans_of(trace::finish()).empty());
}

TEST(Trace, StartsEmptyEveryTime) {
  trace::start();
  { const trace::Span span("first"); }
  trace::finish();
  trace::start();
  EXPECT_TRUE(spans_of(trace::finish()).empty());
}

}  // namespace
}  // namespace lowbit

#include "lowbit/quantize/outlier_choice.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/random.h"

namespace lowbit {
namespace {

constexpr int64_t kTokens = 40, kCols = 24;

// Noise with columns 3 and 17 large in every token, and column 5 huge in one.
std::vector<float> inputs() {
  std::vector<float> rows = test::gaussian(kTokens * kCols, 7);
  for (int64_t t = 0; t < kTokens; ++t) {
    rows[static_cast<size_t>(t * kCols + 3)] = t % 2 == 0 ? 20.f : -18.f;
    rows[static_cast<size_t>(t * kCols + 17)] = 15;
  }
  rows[5] = 900;
  return rows;
}

TEST(OutlierChoice, TakesWhatSetsTheStepOfMostTokens) {
  ThreadPool pool(1);
  EXPECT_EQ(choose_outliers(inputs(), kCols, 2, pool), (std::vector<int32_t>{3, 17}));
  EXPECT_EQ(choose_outliers(inputs(), kCols, 3, pool), (std::vector<int32_t>{3, 5, 17}));
}

TEST(OutlierChoice, IsNearTheBestOfAllPairs) {
  ThreadPool pool(1);
  std::vector<float> rows = test::gaussian(kTokens * kCols, 9);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] *= 1 + static_cast<float>(i % kCols % 7);
  double best = INFINITY;
  for (int32_t a = 0; a < kCols; ++a) {
    for (int32_t b = a + 1; b < kCols; ++b) best = std::min(best, step_left(rows, kCols, {a, b}));
  }
  EXPECT_LT(step_left(rows, kCols, choose_outliers(rows, kCols, 2, pool)), 1.15 * best);
}

TEST(OutlierChoice, DoesNotDependOnThreads) {
  ThreadPool one(1), two(2);
  EXPECT_EQ(choose_outliers(inputs(), kCols, 9, one), choose_outliers(inputs(), kCols, 9, two));
  const std::vector<float> zeros(kTokens * kCols);
  EXPECT_EQ(choose_outliers(zeros, kCols, 4, one).size(), 4u);
}

}  // namespace
}  // namespace lowbit

#include "lowbit/bench/rsr.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/bench/random_model.h"
#include "support/weights.h"

namespace lowbit {
namespace {

// Random codes of -1, 0 and 1, and a scale of 1.
QTensor ternary(int64_t rows, int64_t cols, uint64_t seed) {
  QTensor weight = random_weight(format_by_name("ternary"), rows, cols, seed);
  for (float& scale : weight.scales) scale = 1;
  return weight;
}

TEST(Rsr, MultipliesExactlyWhatDequantizeSays) {
  ThreadPool pool(2);
  for (const int k : {1, 2, 3, 4, 5, 6}) {
    for (const auto& [rows, cols] : {std::pair{1, 1}, {7, 33}, {64, 300}, {130, 97}}) {
      const QTensor weight = ternary(rows, cols, static_cast<uint64_t>(rows + k));
      const RsrMatrix matrix(weight, k);
      std::vector<float> x(static_cast<size_t>(cols)), y(static_cast<size_t>(rows), NAN);
      for (int64_t i = 0; i < cols; ++i) x[i] = static_cast<float>(i * 7 % 31 - 15);
      matrix.multiply(x.data(), y.data(), pool);
      const std::vector<float> dense = dequantize(weight);
      for (int64_t row = 0; row < rows; ++row) {
        float expected = 0;
        for (int64_t col = 0; col < cols; ++col) expected += dense[row * cols + col] * x[col];
        EXPECT_EQ(y[row], expected) << "k " << k << ", row " << row << " of " << rows;
      }
    }
  }
}

TEST(Rsr, RefusesWhatIsNotTernary) {
  EXPECT_THROW(RsrMatrix(random_weight({int_scheme(4, 0)}, 8, 32, 1), 4), Error);
  EXPECT_THROW(RsrMatrix(random_weight({int_scheme(2, 32)}, 8, 64, 1), 4), Error);
  EXPECT_THROW(RsrMatrix(ternary(8, 32, 1), 7), Error);
}

}  // namespace
}  // namespace lowbit

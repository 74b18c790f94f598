#include "lowbit/quantize/absmean.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"
#include "support/random.h"

namespace lowbit {
namespace {

constexpr QuantScheme kWhole{Code::kInt, 2, 0, 0};

QTensor ternary(const std::vector<float>& weight, int64_t rows, QuantScheme scheme,
                ThreadPool* pool = nullptr) {
  const int64_t cols = static_cast<int64_t>(weight.size()) / rows;
  return Ternary().quantize({"w", rows, cols, weight, pool}, for_shape(scheme, rows, cols));
}

TEST(Ternary, RoundsToTheMeanMagnitudeOfTheMatrix) {
  const QTensor made = ternary({0.5f, -0.25f, 2.f, 0.125f, -3.f, 0.f, 1.625f, 0.5f}, 2, kWhole);
  EXPECT_EQ(made.scales, std::vector<float>{1.f});  // the mean of |w|
  EXPECT_EQ(dequantize(made), (std::vector<float>{0, 0, 1, 0, -1, 0, 1, 0}));
}

// BitNet b1.58's weight_quant: w.abs().mean(), (w / scale).round().clamp(-1, 1) * scale.
TEST(Ternary, EqualsBitNetsFormula) {
  const std::vector<float> weight = test::gaussian(64 * 96, 3);
  double sum = 0;
  for (const float w : weight) sum += std::fabs(w);
  const float scale =
      f16_to_f32(f32_to_f16(static_cast<float>(sum / static_cast<double>(weight.size()))));
  const std::vector<float> made = dequantize(ternary(weight, 64, kWhole));
  for (size_t i = 0; i < weight.size(); ++i) {
    const float digit = std::nearbyint(std::fmax(-1.f, std::fmin(1.f, weight[i] / scale)));
    ASSERT_EQ(made[i], digit * scale) << i;
  }
}

TEST(Ternary, HasAScaleForEachGroupIfAsked) {
  const QTensor made = ternary({1, 1, 4, -4, 0, 0, 2, 2}, 2, int_scheme(2, 2));
  EXPECT_EQ(made.scales, (std::vector<float>{1, 4, 0, 2}));
  EXPECT_EQ(dequantize(made), (std::vector<float>{1, 1, 4, -4, 0, 0, 2, 2}));
}

TEST(Ternary, DoesNotDependOnThreads) {
  const std::vector<float> weight = test::gaussian(37 * 64, 4);
  ThreadPool pool(3);
  const QTensor one = ternary(weight, 37, kWhole), three = ternary(weight, 37, kWhole, &pool);
  EXPECT_EQ(one.scales, three.scales);
  EXPECT_EQ(dequantize(one), dequantize(three));
}

TEST(Int1, HoldsSignsAndTheMeanMagnitude) {
  const std::vector<float> weight = {1, -3, 0, 4, -2, -2, 6, 6};
  const QTensor made =
      Int1().quantize({"w", 2, 4, weight, nullptr}, int_scheme(1, 4, Zero::kOffset));
  EXPECT_NO_THROW(validate(made, "w"));
  EXPECT_EQ(dequantize(made), (std::vector<float>{2, -2, 2, 2, -4, -4, 4, 4}));
}

TEST(AbsMean, WhatCannotBeIsRefused) {
  std::vector<float> weight(64, 1.f);
  EXPECT_THROW(ternary(weight, 2, int_scheme(3, 32)), Error);
  EXPECT_THROW(ternary(weight, 2, int_scheme(2, 24)), Error);
  weight[40] = NAN;
  try {
    ternary(weight, 2, kWhole);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("row 1, column 8"), std::string::npos) << error.what();
  }
  weight.assign(64, 1e6f);
  EXPECT_THROW(ternary(weight, 2, kWhole), Error);
}

}  // namespace
}  // namespace lowbit

#include "lowbit/quantize/gptq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/quantize/cholesky.h"
#include "lowbit/quantize/hessian.h"
#include "lowbit/quantize/rtn.h"
#include "support/linears.h"
#include "support/paths.h"
#include "support/random.h"

namespace lowbit {
namespace {

std::vector<double> hessian_of(const std::vector<float>& x, int64_t cols) {
  std::vector<double> sums(static_cast<size_t>(cols * cols));
  for (size_t token = 0; token * cols < x.size(); ++token) {
    const float* row = x.data() + token * cols;
    for (int64_t i = 0; i < cols; ++i) {
      for (int64_t j = 0; j <= i; ++j) sums[i * cols + j] += double(row[i]) * row[j];
    }
  }
  return sums;
}

// Inputs that hang together, so that there is something to gain.
std::vector<float> correlated_inputs(int64_t tokens, int64_t cols, uint64_t seed) {
  const std::vector<float> noise = test::gaussian(static_cast<size_t>(tokens * cols), seed);
  std::vector<float> x(noise.size());
  for (int64_t t = 0; t < tokens; ++t) {
    float carried = 0;
    for (int64_t k = 0; k < cols; ++k) {
      carried = 0.9f * carried + noise[t * cols + k];
      x[t * cols + k] = carried * (k % 7 == 3 ? 4.f : 1.f);
    }
  }
  return x;
}

// ||x (w - q)^T||^2
double output_error(const std::vector<float>& x, const std::vector<float>& w, const QTensor& q) {
  const std::vector<float> values = dequantize(q);
  double error = 0;
  for (size_t token = 0; token * q.cols < x.size(); ++token) {
    for (int64_t n = 0; n < q.rows; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < q.cols; ++k) {
        sum += double(x[token * q.cols + k]) * (w[n * q.cols + k] - values[n * q.cols + k]);
      }
      error += sum * sum;
    }
  }
  return error;
}

QTensor gptq(const std::vector<float>& x, const std::vector<float>& w, int64_t cols,
             const QuantScheme& scheme, const GptqOptions& options = {}, int threads = 1) {
  ThreadPool pool(threads);
  const GptqFactor factor = gptq_factor("w", hessian_of(x, cols), cols, options, pool);
  const int64_t rows = static_cast<int64_t>(w.size()) / cols;
  return gptq_round({"w", rows, cols, w, &pool}, scheme, factor, options);
}

TEST(Cholesky, MakesTheFactorOfTheInverse) {
  ThreadPool pool(3);
  for (const int64_t size : {1, 5, 64, 150}) {
    const std::vector<float> x = correlated_inputs(size + 40, size, 3);
    std::vector<double> h = hessian_of(x, size), spoiled = h;
    const std::vector<float> factor = inverse_factor(spoiled, size, pool);
    ASSERT_EQ(factor.size(), h.size());
    // U * H * U^T is 1 for inverse(H) = U^T * U; `factor` is U transposed.
    const auto symmetric = [&](int64_t i, int64_t j) {
      return h[std::max(i, j) * size + std::min(i, j)];
    };
    for (int64_t a = 0; a < size; a += 7) {
      for (int64_t b = 0; b < size; ++b) {
        double sum = 0;
        for (int64_t i = a; i < size; ++i) {
          for (int64_t j = b; j < size; ++j) {
            sum += double(factor[i * size + a]) * symmetric(i, j) * factor[j * size + b];
          }
        }
        EXPECT_NEAR(sum, a == b ? 1 : 0, 1e-4) << size << " " << a << " " << b;
      }
      for (int64_t b = a + 1; b < size; ++b) EXPECT_EQ(factor[a * size + b], 0.f);
    }
  }
  std::vector<double> singular(100, 1.0);
  EXPECT_TRUE(inverse_factor(singular, 10, pool).empty());
}

TEST(Gptq, EqualsThePaperInFloat64) {
  const test::MemorySource source{SafetensorsFile(test::golden("quantize/gptq.safetensors"))};
  const std::vector<float> x = test::floats(source.tensor("x"));
  const std::vector<float> w = test::floats(source.tensor("weight"));
  for (const int bits : {3, 4}) {
    for (const bool symmetric : {true, false}) {
      for (const std::string name : {"plain", "order", "static"}) {
        const std::string key = concat("w", bits, ".", symmetric ? "sym" : "asym", ".", name);
        SCOPED_TRACE(key);
        for (const int64_t block : {1, 40, 128}) {
          const GptqOptions options{.act_order = name == "plain"    ? ActOrder::kNone
                                                 : name == "static" ? ActOrder::kStatic
                                                                    : ActOrder::kKept,
                                    .search_scale = false,
                                    .block_size = block};
          const QTensor q =
              gptq(x, w, 96, int_scheme(bits, 32, symmetric ? Zero::kNone : Zero::kInt), options);
          validate(q, key);
          EXPECT_EQ(q.input_order.empty(), name != "order");
          // Every code is the paper's; a scale between two halves may go the other way in fp32.
          const std::vector<float> made = dequantize(q), paper = test::floats(source.tensor(key));
          constexpr float kHalfStep = 0x1p-10f;
          for (size_t i = 0; i < made.size(); ++i) {
            ASSERT_NEAR(made[i], paper[i], kHalfStep * std::fabs(paper[i])) << block << " " << i;
          }
        }
      }
    }
  }
}

TEST(Gptq, IsNeverWorseThanRtnOnItsOwnCalibrationData) {
  constexpr int64_t kCols = 128, kRows = 24;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const std::vector<float> x = correlated_inputs(300, kCols, seed);
    const std::vector<float> w = test::gaussian(kRows * kCols, seed + 100);
    for (const int bits : {2, 3, 4, 8}) {
      for (const Zero zero : {Zero::kNone, Zero::kInt}) {
        for (const int64_t group : {32, 128}) {
          const QuantScheme scheme = int_scheme(bits, group, zero);
          const double rtn =
              output_error(x, w, Rtn().quantize({"w", kRows, kCols, w, nullptr}, scheme));
          for (const ActOrder order : {ActOrder::kNone, ActOrder::kStatic, ActOrder::kKept}) {
            const GptqOptions options{.act_order = order};
            EXPECT_LT(output_error(x, w, gptq(x, w, kCols, scheme, options)), 0.9 * rtn)
                << bits << " " << group << " " << static_cast<int>(order);
          }
        }
      }
    }
  }
}

TEST(Gptq, EqualsRtnWhenInputsAreIndependent) {
  constexpr int64_t kCols = 64, kRows = 20;
  std::vector<float> x(kCols * kCols);
  for (int64_t k = 0; k < kCols; ++k) x[k * kCols + k] = 1;
  const std::vector<float> w = test::gaussian(kRows * kCols, 4);
  const QuantScheme scheme = int_scheme(4, 32, Zero::kInt);
  const GptqOptions plain{.search_scale = false};
  EXPECT_EQ(dequantize(gptq(x, w, kCols, scheme, plain)),
            dequantize(Rtn().quantize({"w", kRows, kCols, w, nullptr}, scheme)));
  // Symmetric groups have smaller steps than rtn's, and still no weight is far from its code.
  const QTensor q = gptq(x, w, kCols, int_scheme(4, 32), plain);
  const std::vector<float> values = dequantize(q);
  for (size_t i = 0; i < w.size(); ++i) {
    EXPECT_NEAR(values[i], w[i], 0.505f * q.scales[i / 32]) << i;
  }
}

TEST(Gptq, SearchedScalesLeaveLessError) {
  constexpr int64_t kCols = 128, kRows = 24;
  const std::vector<float> x = correlated_inputs(300, kCols, 1);
  const std::vector<float> w = test::gaussian(kRows * kCols, 101);
  for (const Zero zero : {Zero::kNone, Zero::kInt}) {
    const QuantScheme scheme = int_scheme(3, 64, zero);
    const QTensor searched = gptq(x, w, kCols, scheme, {.search_scale = true});
    validate(searched, "searched");
    EXPECT_LT(output_error(x, w, searched), output_error(x, w, gptq(x, w, kCols, scheme)));
  }
}

TEST(Gptq, DoesNotDependOnThreads) {
  constexpr int64_t kCols = 160, kRows = 70;
  const std::vector<float> x = correlated_inputs(200, kCols, 9);
  const std::vector<float> w = test::gaussian(kRows * kCols, 10);
  const QTensor one = gptq(x, w, kCols, int_scheme(3, 32));
  for (const int threads : {2, 5}) {
    const QTensor many = gptq(x, w, kCols, int_scheme(3, 32), {}, threads);
    EXPECT_EQ(dequantize(many), dequantize(one));
  }
}

TEST(Gptq, RaisesTheDampingOfASingularHessianAndSaysSo) {
  constexpr int64_t kCols = 64;
  std::vector<float> x(kCols, 1.f);  // one token: rank 1
  x[5] = 0;                          // and a dead column
  const std::vector<float> w = test::gaussian(8 * kCols, 11);
  GptqOptions options;
  options.damp_percent = 1e-18;
  ThreadPool pool(1);
  const GptqFactor factor = gptq_factor("w", hessian_of(x, kCols), kCols, options, pool);
  EXPECT_GT(factor.damp_percent, 1e-3);
  const QTensor q = gptq_round({"w", 8, kCols, w, &pool}, int_scheme(4, 32), factor, options);
  for (const float value : dequantize(q)) EXPECT_TRUE(std::isfinite(value));
  for (int64_t n = 0; n < 8; ++n) EXPECT_EQ(dequantize(q)[n * kCols + 5], 0.f);
}

TEST(Gptq, NamesWhatIsNotFinite) {
  std::vector<float> x = correlated_inputs(80, 32, 1), w = test::gaussian(32 * 4, 2);
  x[40] = INFINITY;
  try {
    gptq(x, w, 32, int_scheme(4, 32));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("column 8"), std::string::npos) << error.what();
  }
  x[40] = 1;
  w[33] = NAN;
  try {
    gptq(x, w, 32, int_scheme(4, 32));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("row 1, column 1"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace lowbit

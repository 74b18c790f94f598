#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/runtime/backend.h"
#include "support/backends.h"
#include "support/random.h"

namespace lowbit {
namespace {

using test::gaussian;
using test::relative_error;

class Elementwise : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    LOWBIT_SKIP_WITHOUT_BACKEND(GetParam());
    backend_ = make_backend(GetParam(), {2, Activations::kF32});
  }
  Tensor tensor(int64_t rows, int64_t cols, uint64_t seed) {
    return test::tensor_of(*backend_, gaussian(rows * cols, seed), rows);
  }
  std::vector<float> values(const Tensor& tensor) { return test::values_of(*backend_, tensor); }
  std::unique_ptr<Backend> backend_;
};

std::vector<float> naive_norm(const std::vector<float>& x, const std::vector<float>& weight) {
  const size_t count = weight.size();
  std::vector<float> out(x.size());
  for (size_t row = 0; row < x.size(); row += count) {
    double squares = 0;
    for (size_t i = 0; i < count; ++i) squares += double(x[row + i]) * x[row + i];
    const double scale = 1 / std::sqrt(squares / double(count) + 1e-5);
    for (size_t i = 0; i < count; ++i) out[row + i] = float(x[row + i] * scale * weight[i]);
  }
  return out;
}

TEST_P(Elementwise, AddRmsNormAddsThenNormalizes) {
  for (const int64_t cols : {1, 7, 8, 100, 576}) {
    for (const int64_t rows : {1, 13}) {
      Tensor residual = tensor(rows, cols, 1), hidden = tensor(rows, cols, 2);
      const std::vector<float> weight = gaussian(cols, 3);
      std::vector<float> sum = values(residual);
      const std::vector<float> added = values(hidden);
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += added[i];
      backend_->add_rms_norm(residual, hidden, backend_->upload(weight), 1e-5f, hidden);
      EXPECT_EQ(values(residual), sum);
      EXPECT_LT(relative_error(values(hidden), naive_norm(sum, weight)), 1e-6) << cols;
    }
  }
}

TEST_P(Elementwise, QkNormLeavesValuesAlone) {
  const AttentionShape shape{4, 2, 20, 0};
  Tensor qkv = tensor(3, shape.qkv_cols(), 4);
  const std::vector<float> before = values(qkv), q = gaussian(20, 5), k = gaussian(20, 6);
  backend_->qk_norm(qkv, shape, backend_->upload(q), backend_->upload(k), 1e-5f);
  const std::vector<float> after = values(qkv);
  for (int64_t token = 0; token < 3; ++token) {
    for (int64_t head = 0; head < 8; ++head) {
      const auto at = token * shape.qkv_cols() + head * 20;
      const std::vector<float> in(before.begin() + at, before.begin() + at + 20);
      const std::vector<float> out(after.begin() + at, after.begin() + at + 20);
      EXPECT_LT(relative_error(out, head < 6 ? naive_norm(in, head < 4 ? q : k) : in), 1e-6);
    }
  }
}

TEST_P(Elementwise, SiluIsAccurateEverywhere) {
  std::vector<float> points = {0.f, -0.f, 1e-30f, 88.f, -88.f, -87.4f, -103.f, 3e38f, -3e38f};
  for (int i = -4000; i < 4000; ++i) points.push_back(static_cast<float>(i) * 0.011f);
  const int64_t count = static_cast<int64_t>(points.size());
  std::vector<float> inputs = points;
  inputs.resize(2 * points.size(), 1.f);
  const Tensor gate_up = test::tensor_of(*backend_, inputs, 1);
  Tensor out = backend_->allocate(1, count);
  backend_->silu_mul(gate_up, out);
  const std::vector<float> found = values(out);
  for (int64_t i = 0; i < count; ++i) {
    const double exact = points[i] / (1 + std::exp(-double(points[i])));
    EXPECT_NEAR(found[i], exact, std::abs(exact) * 5e-7 + 1e-36) << points[i];
  }
}

TEST_P(Elementwise, SiluMulTakesTheGateFirst) {
  for (const int64_t cols : {1, 9, 1536}) {
    Tensor gate_up = tensor(5, 2 * cols, 7), out = backend_->allocate(5, cols);
    backend_->silu_mul(gate_up, out);
    const std::vector<float> inputs = values(gate_up);
    std::vector<float> expected;
    for (int64_t i = 0; i < 5 * cols; ++i) {
      const float* row = inputs.data() + i / cols * 2 * cols;
      const double gate = row[i % cols];
      expected.push_back(float(gate / (1 + std::exp(-gate)) * row[cols + i % cols]));
    }
    EXPECT_LT(relative_error(values(out), expected), 1e-6);
  }
}

TEST_P(Elementwise, GatherTakesRowsInAnyOrder) {
  Tensor x = tensor(4, 3, 8), out = backend_->allocate(3, 3);
  const int32_t rows[] = {3, 0, 3}, beyond[] = {0, 1, 4};
  backend_->gather_rows(x, rows, out);
  const std::vector<float> from = values(x), found = values(out);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(found[i * 3 + 1], from[rows[i] * 3 + 1]);
  EXPECT_THROW(backend_->gather_rows(x, beyond, out), Error);
}

TEST_P(Elementwise, ZeroClears) {
  Tensor x = tensor(2, 5, 9);
  backend_->zero(x);
  EXPECT_EQ(values(x), std::vector<float>(10));
}

INSTANTIATE_TEST_SUITE_P(Backends, Elementwise, ::testing::ValuesIn(backend_names()),
                         [](const auto& info) { return info.param; });

TEST(Backends, AnUnknownNameListsThoseThereAre) {
  try {
    make_backend("tpu");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("ref"), std::string::npos);
  }
  EXPECT_THROW(make_backend("ref", {-1, Activations::kDefault}), Error);
}

}  // namespace
}  // namespace lowbit

// What a backend makes one kernel of must be what its single calls make, bit for bit.
#include <gtest/gtest.h>

#include "lowbit/runtime/backend.h"
#include "support/backends.h"
#include "support/random.h"
#include "support/weights.h"

namespace lowbit {
namespace {

using test::gaussian;
using test::random_weight;

constexpr int64_t kCols[] = {3, 100, 576, 4096, 8320};
constexpr int64_t kTokens[] = {1, 2, 3};

// Weights of 40 rows in two schemes, with the columns of one in an order of its own if asked for.
std::unique_ptr<Linear> make_linear(Backend& backend, const QuantScheme& scheme, int64_t cols,
                                    bool ordered) {
  std::vector<LinearWeight> parts(2);
  parts[0].name = "a";
  parts[0].weight = random_weight(scheme, 23, cols, 1, true);
  if (ordered) parts[0].weight.input_order = test::random_order(cols, 5);
  parts[0].bias = gaussian(23, 3);
  parts[1].name = "b";
  parts[1].weight = random_weight(dense_scheme(Code::kF16), 17, cols, 2, true);
  return backend.make_linear(std::move(parts));
}

using Parameters = std::tuple<std::string, Activations, QuantScheme>;

class FusedCalls : public ::testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    const auto& [name, activations, scheme] = GetParam();
    LOWBIT_SKIP_WITHOUT_BACKEND(name);
    backend_ = make_backend(name, {2, activations});
    scheme_ = scheme;
  }
  Tensor tensor(int64_t rows, int64_t cols, uint64_t seed) {
    return test::tensor_of(*backend_, gaussian(rows * cols, seed), rows);
  }
  std::vector<float> values(const Tensor& tensor) { return test::values_of(*backend_, tensor); }

  void check_norm(int64_t cols, int64_t tokens, bool ordered) {
    const auto linear = make_linear(*backend_, scheme_, cols, ordered);
    const Tensor weight = backend_->upload(gaussian(cols, 4));
    Tensor residual = tensor(tokens, cols, 5), hidden = tensor(tokens, cols, 6);
    Tensor y = backend_->allocate(tokens, 40);
    backend_->add_rms_norm(residual, hidden, weight, 1e-5f, hidden);
    linear->forward(hidden, y);
    const std::vector<float> sum = values(residual), expected = values(y);

    Tensor start = tensor(tokens, cols, 5), added = tensor(tokens, cols, 6);
    const int64_t rows = tokens <= backend_->spare_rows() ? tokens : 0;
    Tensor spare = backend_->allocate(rows, cols), found = backend_->allocate(tokens, 40);
    backend_->norm_forward(start, spare, added, weight, 1e-5f, *linear, found);
    EXPECT_EQ(values(found), expected) << cols << " x " << tokens;
    EXPECT_EQ(values(start), sum) << cols << " x " << tokens;
    EXPECT_EQ(spare.rows, rows);
  }
  // gate_rows: of each half. mixed: its halves have two schemes.
  void check_silu(int64_t cols, int64_t tokens, int64_t gate_rows, bool mixed) {
    std::vector<LinearWeight> parts(2);
    for (size_t i = 0; i < 2; ++i) {
      parts[i].name = "part";
      parts[i].weight = random_weight(i == 1 && mixed ? dense_scheme(Code::kF16) : scheme_,
                                      gate_rows, cols, i, true);
      parts[i].bias = gaussian(gate_rows, 3 + i);
    }
    const auto linear = backend_->make_linear(std::move(parts));
    const Tensor weight = backend_->upload(gaussian(cols, 4));
    Tensor residual = tensor(tokens, cols, 5), hidden = tensor(tokens, cols, 6);
    Tensor gate_up = backend_->allocate(tokens, 2 * gate_rows);
    Tensor out = backend_->allocate(tokens, gate_rows);
    backend_->add_rms_norm(residual, hidden, weight, 1e-5f, hidden);
    linear->forward(hidden, gate_up);
    backend_->silu_mul(gate_up, out);

    Tensor start = tensor(tokens, cols, 5), added = tensor(tokens, cols, 6);
    Tensor spare = backend_->allocate(tokens <= backend_->spare_rows() ? tokens : 0, cols);
    Tensor found = backend_->allocate(tokens, gate_rows);
    backend_->norm_forward_silu(start, spare, added, weight, 1e-5f, *linear, gate_up, found);
    EXPECT_EQ(values(found), values(out)) << cols << " x " << tokens << " to " << gate_rows;
    EXPECT_EQ(values(start), values(residual));
  }

  std::unique_ptr<Backend> backend_;
  QuantScheme scheme_;
};

TEST_P(FusedCalls, NormThenLinear) {
  for (const int64_t cols : kCols) {
    for (const int64_t tokens : kTokens) check_norm(cols, tokens, false);
  }
  check_norm(576, 1, true);
}

TEST_P(FusedCalls, NormThenLinearThenSilu) {
  for (const int64_t cols : {100, 576, 4096}) {
    for (const int64_t tokens : {1, 2, 3, 7}) check_silu(cols, tokens, 48, false);
  }
  check_silu(256, 1, 2 * 16 * 140, false);  // more tiles than any device's multiprocessors
  check_silu(576, 1, 40, false);
  check_silu(576, 1, 48, true);
}

INSTANTIATE_TEST_SUITE_P(
    Backends, FusedCalls,
    ::testing::Combine(::testing::ValuesIn(backend_names()),
                       ::testing::Values(Activations::kDefault, Activations::kF32),
                       ::testing::Values(int_scheme(4, 64, Zero::kInt), int_scheme(8, 1 << 20),
                                         table_scheme(Code::kNf4, 64), fp8_scheme(1, 1 << 20),
                                         dense_scheme(Code::kBF16), dense_scheme(Code::kF32))),
    [](const auto& info) {
      return std::get<0>(info.param) +
             (std::get<1>(info.param) == Activations::kF32 ? "_f32_" : "_") +
             name_of(std::get<2>(info.param));
    });

}  // namespace
}  // namespace lowbit

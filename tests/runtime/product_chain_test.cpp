// Calls of a step of one token that the GPU makes one kernel of must write what they write one by
// one, bit for bit, whatever the chain's length.
#include <gtest/gtest.h>

#include "lowbit/runtime/backend.h"
#include "support/backends.h"
#include "support/environment.h"
#include "support/random.h"
#include "support/weights.h"

namespace lowbit {
namespace {

using test::gaussian;
using test::random_weight;
using test::ScopedVariable;
using test::values_of;

struct Sizes {
  int64_t hidden, intermediate, next;
};
struct Case {
  std::string name;
  QuantScheme attention, mlp;  // of weights
  Sizes sizes = {2048, 2048, 4500};
  float inputs = 1;  // how large they are
  bool bias = false;
};

std::unique_ptr<Linear> make_linear(Backend& backend, const QuantScheme& scheme, int64_t rows,
                                    int64_t cols, uint64_t seed, bool bias) {
  std::vector<LinearWeight> parts(1);
  parts[0].name = "part";
  parts[0].weight = random_weight(scheme, rows, cols, seed);
  if (bias) parts[0].bias = gaussian(static_cast<size_t>(rows), seed + 50);
  return backend.make_linear(std::move(parts));
}

// What the calls of a decoder block leave in its tensors.
class Block {
 public:
  Block(Backend& backend, const Case& c) : backend_(backend) {
    const auto& [hidden, intermediate, next] = c.sizes;
    start_ = make_linear(backend, c.attention, hidden, hidden, 1, false);
    o_ = make_linear(backend, c.attention, hidden, hidden, 2, c.bias);
    gate_up_ = make_linear(backend, c.mlp, 2 * intermediate, hidden, 3, c.bias);
    down_ = make_linear(backend, c.mlp, hidden, intermediate, 4, c.bias);
    next_ = make_linear(backend, c.attention, next, hidden, 5, c.bias);
    norm_ = backend.upload(gaussian(static_cast<size_t>(hidden), 6));
    std::vector<float> x = gaussian(static_cast<size_t>(hidden), 7);
    for (float& value : x) value *= c.inputs;
    x_ = test::tensor_of(backend, x, 1);
    residual_ = backend.allocate(1, hidden);
    hidden_ = backend.allocate(1, hidden);
    gate_up_out_ = backend.allocate(1, 2 * intermediate);
    mlp_ = backend.allocate(1, intermediate);
    next_out_ = backend.allocate(1, next);
    other_ = backend.allocate(1, 1);
    cache_ = backend.make_kv_cache({1, 1, 8, 1, DType::kF16});
  }

  // `apart`: something that is no product stands before the block.
  std::vector<std::vector<float>> run(bool apart, bool last) {
    StepBatch batch;
    batch.tokens = {0};
    batch.sequences = {{0, 1, 0, {0}}};
    backend_.run_step(batch, cache_, apart ? this : static_cast<const void*>(&batch_key_), [&] {
      start_->forward(x_, residual_);
      if (apart) backend_.zero(other_);
      o_->forward(x_, hidden_);
      backend_.add_rms_norm(residual_, hidden_, norm_, 1e-5f, hidden_);
      gate_up_->forward(hidden_, gate_up_out_);
      backend_.silu_mul(gate_up_out_, mlp_);
      down_->forward(mlp_, hidden_);
      if (!last) {
        backend_.add_rms_norm(residual_, hidden_, norm_, 1e-5f, hidden_);
        next_->forward(hidden_, next_out_);
      }
      backend_.zero(other_);
    });
    return {values_of(backend_, residual_), values_of(backend_, hidden_),
            values_of(backend_, gate_up_out_), values_of(backend_, mlp_),
            values_of(backend_, next_out_)};
  }

 private:
  Backend& backend_;
  std::unique_ptr<Linear> start_, o_, gate_up_, down_, next_;
  Tensor norm_, x_, residual_, hidden_, gate_up_out_, mlp_, next_out_, other_;
  KvCache cache_;
  int batch_key_ = 0;
};

class ProductChain : public ::testing::TestWithParam<Case> {};

TEST_P(ProductChain, OfCallsHasTheirBitsOnCuda) {
  LOWBIT_SKIP_WITHOUT_BACKEND("cuda");
  std::vector<std::vector<float>> expected;
  for (const char* longest : {"0", "1", "2", "3", "4"}) {
    const ScopedVariable chain("LOWBIT_CUDA_CHAIN", longest);
    const auto backend = make_backend("cuda", {1, Activations::kDefault});
    Block block(*backend, GetParam());
    if (expected.empty()) expected = block.run(true, false);
    for (const bool apart : {true, false}) {
      for (int step = 0; step < 6; ++step) {
        ASSERT_EQ(block.run(apart, false), expected)
            << "chains of " << longest << ", step " << step << (apart ? ", apart" : "");
      }
    }
  }
}

TEST_P(ProductChain, ThatEndsWithABlockHasTheirBitsOnCuda) {
  LOWBIT_SKIP_WITHOUT_BACKEND("cuda");
  std::vector<std::vector<float>> expected;
  for (const char* longest : {"0", "4"}) {
    const ScopedVariable chain("LOWBIT_CUDA_CHAIN", longest);
    const auto backend = make_backend("cuda", {1, Activations::kDefault});
    Block block(*backend, GetParam());
    std::vector<std::vector<float>> found = block.run(true, true);
    found.pop_back();
    if (expected.empty()) expected = found;
    ASSERT_EQ(found, expected) << longest;
  }
}

std::vector<Case> cases() {
  const QuantScheme w4 = int_scheme(4, 128), w8 = int_scheme(8, 1 << 20);
  const QuantScheme bf16 = dense_scheme(Code::kBF16);
  return {
      {"w4_g128", w4, w4},
      {"w4_g128_long", w4, w4, {4096, 6144, 9001}},
      {"w4_g128_large_inputs", w4, w4, {2048, 2048, 4500}, 3e4f, true},
      {"w4_g32_zeros", int_scheme(4, 32, Zero::kInt), int_scheme(4, 32, Zero::kInt)},
      {"w8", w8, w8},
      {"fp8", fp8_scheme(1, 1 << 20), fp8_scheme(1, 1 << 20)},
      {"f16", dense_scheme(Code::kF16), dense_scheme(Code::kF16)},
      {"bf16", bf16, bf16, {2048, 4096, 4500}, 1, true},
      {"mixed", w4, w8},
      {"uneven", w4, w4, {2048, 2000, 100}},
  };
}

INSTANTIATE_TEST_SUITE_P(Cases, ProductChain, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace lowbit

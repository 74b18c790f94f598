// The block's gradients against finite differences and against torch's.
#include "lowbit/quantize/decoder_block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "lowbit/base/check.h"
#include "lowbit/base/json.h"
#include "lowbit/runtime/cpu/isa.h"
#include "support/environment.h"
#include "support/random_block.h"

namespace lowbit {
namespace {

using test::random_block;
using test::random_values;
using Shape = test::BlockShape;

std::shared_ptr<const RopeTables> tables(int64_t head_dim, int64_t positions) {
  return std::make_shared<RopeTables>(rope_tables({}, head_dim, positions));
}

// Products of whole floats: those of AMX keep 17 bits, too few for differences of losses.
constexpr const char* kExact = "avx2";

// A block, a batch, and the loss sum(y * dy), whose gradient for y is dy.
struct Case {
  Case(const Shape& shape, SequenceBatch sequences, int threads = 2,
       const std::string& instructions = kExact)
      : isa("LOWBIT_CPU_ISA", instructions),
        pool(threads),
        batch(sequences),
        block(random_block(shape), tables(shape.head_dim, batch.length), pool),
        x(random_values(batch.tokens() * shape.hidden, 5, 1.f)),
        dy(random_values(batch.tokens() * shape.hidden, 6, 1.f)),
        y(x.size()),
        dx(x.size()) {}

  double loss() {
    block.forward(batch, x, trace, y);
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += static_cast<double>(y[i]) * dy[i];
    return sum;
  }
  void backward() {
    loss();
    block.backward(x, trace, dy, gradients, dx);
  }
  // Central differences of the loss.
  double slope(float& value) {
    const float before = value, step = 1e-2f;
    value = before + step;
    const double above = loss();
    value = before - step;
    const double below = loss();
    value = before;
    return (above - below) / (2 * static_cast<double>(step));
  }

  test::ScopedVariable isa;
  ThreadPool pool;
  SequenceBatch batch;
  DecoderBlock block;
  std::vector<float> x, dy, y, dx;
  BlockTrace trace;
  BlockGradients gradients;
};

void check_gradients(const Shape& shape) {
  Case c(shape, {2, 7});
  c.backward();
  const auto near = [](double got, double slope, const std::string& what) {
    EXPECT_NEAR(got, slope, 2e-3 * std::fabs(slope) + 2e-2) << what;
  };
  for (size_t i = 0; i < c.x.size(); i += 17) near(c.dx[i], c.slope(c.x[i]), "x");
  for (int n = 0; n < kBlockLinears; ++n) {
    std::vector<float>& weight = c.block.weights().linears[static_cast<size_t>(n)].weight;
    for (size_t i = 0; i < weight.size(); i += 61) {
      near(c.gradients[static_cast<size_t>(n)][i], c.slope(weight[i]), concat("linear ", n));
    }
  }
}

TEST(DecoderBlock, GradientsAreTheSlopesOfALlamaBlock) { check_gradients({}); }
TEST(DecoderBlock, GradientsAreTheSlopesWithBiases) {
  Shape shape;
  shape.bias = true;
  check_gradients(shape);
}
TEST(DecoderBlock, GradientsAreTheSlopesWithNormalizedHeads) {
  Shape shape;
  shape.qk_norm = true;
  check_gradients(shape);
}
TEST(DecoderBlock, GradientsAreTheSlopesWithASlidingWindow) {
  Shape shape;
  shape.window = 3;
  check_gradients(shape);
}

TEST(DecoderBlock, StripsOfQueriesJoinWithoutASeam) {
  Shape shape;
  shape.window = 130;
  Case c(shape, {1, 300});
  c.backward();
  for (size_t i = 0; i < c.x.size(); i += 997) {
    const double slope = c.slope(c.x[i]);
    EXPECT_NEAR(c.dx[i], slope, 2e-3 * std::fabs(slope) + 5e-2);
  }
}

TEST(DecoderBlock, EveryInstructionSetAgrees) {
  Case exact({}, {3, 50});
  exact.backward();
  for (const std::string& isa : cpu::available_isas()) {
    SCOPED_TRACE(isa);
    Case c({}, {3, 50}, 2, isa);
    c.backward();
    EXPECT_LT(test::relative_error(c.y, exact.y), 3e-4);
    EXPECT_LT(test::relative_error(c.dx, exact.dx), 3e-4);
    for (size_t n = 0; n < kBlockLinears; ++n) {
      EXPECT_LT(test::relative_error(c.gradients[n], exact.gradients[n]), 3e-4) << n;
    }
  }
}

TEST(DecoderBlock, ResultsDoNotDependOnThreads) {
  Case one({}, {3, 150}, 1), four({}, {3, 150}, 4);
  one.backward();
  four.backward();
  EXPECT_EQ(one.y, four.y);
  EXPECT_EQ(one.dx, four.dx);
  EXPECT_EQ(one.gradients, four.gradients);
}

TEST(DecoderBlock, ASequenceIsTheSameAloneAndInABatch) {
  Case c({}, {2, 9});
  c.loss();
  const std::vector<float> both = c.y;
  const size_t half = both.size() / 2;
  std::vector<float> y(half);
  c.block.forward({1, 9}, std::span(c.x).subspan(half), c.trace, y);
  EXPECT_EQ(y, std::vector<float>(both.begin() + static_cast<int64_t>(half), both.end()));
}

TEST(DecoderBlock, RefusesSequencesLongerThanItsTables) {
  Case c({}, {1, 4});
  std::vector<float> x(5 * 24), y(5 * 24);
  EXPECT_THROW(c.block.forward({1, 5}, x, c.trace, y), Error);
  EXPECT_THROW(c.block.forward({1, 4}, x, c.trace, y), Error);
}

// tools/golden/decoder_block.py: a small block with torch's output and gradients.
TEST(DecoderBlock, AgreesWithTorch) {
  const test::ScopedVariable isa("LOWBIT_CPU_ISA", kExact);
  std::ifstream file(std::string(LOWBIT_GOLDEN_DIR) + "/quantize/decoder_block.json");
  const nlohmann::json golden = nlohmann::json::parse(file);
  const auto values = [&](const char* key) { return golden[key].get<std::vector<float>>(); };
  BlockWeights block;
  const char* names[] = {"q", "k", "v", "o", "gate", "up", "down"};
  for (size_t i = 0; i < kBlockLinears; ++i) {
    const auto shape = golden["shapes"][names[i]].get<std::vector<int64_t>>();
    block.linears[i] = {names[i], shape[0], shape[1], values(names[i]), {}};
  }
  block.input_norm = values("input_norm");
  block.post_attention_norm = values("post_attention_norm");
  block.q_norm = values("q_norm");
  block.k_norm = values("k_norm");
  block.attention = {golden["heads"], golden["kv_heads"], golden["head_dim"], golden["window"]};
  block.hidden = golden["hidden"];
  block.intermediate = golden["intermediate"];
  block.eps = golden["eps"];
  const SequenceBatch batch = {golden["sequences"], golden["length"]};
  ThreadPool pool(2);
  DecoderBlock decoder(std::move(block), tables(golden["head_dim"], batch.length), pool);
  const std::vector<float> x = values("x"), dy = values("dy");
  std::vector<float> y(x.size()), dx(x.size());
  BlockTrace trace;
  BlockGradients gradients;
  decoder.forward(batch, x, trace, y);
  decoder.backward(x, trace, dy, gradients, dx);
  const auto compare = [](const std::vector<float>& got, const std::vector<float>& expected) {
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 2e-5) << i;
  };
  compare(y, values("y"));
  compare(dx, values("dx"));
  for (size_t i = 0; i < kBlockLinears; ++i) {
    compare(gradients[i], values((std::string("d") + names[i]).c_str()));
  }
}

}  // namespace
}  // namespace lowbit

#include "lowbit/quantize/awq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/learning.h"
#include "lowbit/quantize/rtn.h"
#include "support/environment.h"
#include "support/linears.h"
#include "support/paths.h"
#include "support/random.h"

namespace lowbit {
namespace {

// The block and the inputs of tools/golden/awq.py.
struct Golden {
  test::MemorySource source{SafetensorsFile(test::golden("quantize/awq.safetensors"))};
  BlockWeights block;
  HiddenStates input{3, 24, 32};
  std::shared_ptr<const RopeTables> rope;

  Golden() {
    block.attention = {.heads = 2, .kv_heads = 1, .head_dim = 16};
    block.hidden = 32;
    block.intermediate = 64;
    block.eps = 1e-5f;
    block.input_norm = floats("input_norm");
    block.post_attention_norm = floats("post_norm");
    const char* names[] = {"q", "k", "v", "o", "gate", "up", "down"};
    for (int i = 0; i < kBlockLinears; ++i) {
      const StoredTensor stored = source.tensor(names[i]);
      block.linears[i] = {names[i], stored.shape[0], stored.shape[1], floats(names[i]), {}};
    }
    const std::vector<float> x = floats("x");
    std::copy(x.begin(), x.end(), input.sample(0).begin());
    for (int64_t s = 0; s < 3; ++s) {
      std::copy_n(x.begin() + s * 24 * 32, 24 * 32, input.sample(s).begin());
    }
    RopeConfig config;
    rope = std::make_shared<RopeTables>(rope_tables(config, 16, 24));
  }
  std::vector<float> floats(const std::string& name) const {
    return test::floats(source.tensor(name));
  }

  BlockResult run(int threads, const AwqOptions& options = {}) {
    ThreadPool pool(threads);
    const auto learning = make_learning("cpu", pool);
    BlockJob job{.block = block,
                 .schemes = {},
                 .rope = rope,
                 .original_input = &input,
                 .pool = pool,
                 .learning = *learning,
                 .progress = [](double, const std::string&) {},
                 .notice = [](const std::string&) {}};
    job.schemes.fill(int_scheme(4, 32, Zero::kInt));
    return Awq(options).quantize(job);
  }

  // Mean squared error of the block's output for weights `result` in the block as folded.
  double error_of(const BlockResult& result) const {
    ThreadPool pool(1);
    DecoderBlock original(Golden().block, rope, pool), made(block, rope, pool);
    for (int i = 0; i < kBlockLinears; ++i)
      made.weights().linears[i].weight = dequantize(result[i]);
    BlockTrace trace;
    std::vector<float> a(24 * 32), b(a.size());
    double error = 0;
    for (int64_t s = 0; s < 3; ++s) {
      original.forward({1, 24}, input.sample(s), trace, a);
      made.forward({1, 24}, input.sample(s), trace, b);
      for (size_t i = 0; i < a.size(); ++i) error += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return error;
  }
};

TEST(Awq, EqualsThePaperInFloat64) {
  Golden golden;
  const BlockResult result = golden.run(1);
  EXPECT_LT(test::relative_error(golden.block.input_norm, golden.floats("awq.input_norm")), 1e-5);
  EXPECT_LT(test::relative_error(golden.block.post_attention_norm, golden.floats("awq.post_norm")),
            1e-5);
  for (int i = 0; i < kBlockLinears; ++i) {
    const std::string& name = golden.block.linears[i].name;
    const std::vector<float> expected = golden.floats("awq." + name), found = dequantize(result[i]);
    // A weight half way between two codes may go the other way in fp32, with its group's zero.
    int64_t different = 0;
    for (size_t k = 0; k < found.size(); ++k) {
      different += std::fabs(found[k] - expected[k]) > 2e-3f * std::fabs(expected[k]) + 1e-6f;
    }
    EXPECT_LE(different, static_cast<int64_t>(found.size() / 100)) << name;
  }
}

TEST(Awq, FoldingChangesNothingThatTheBlockComputes) {
  // Products of whole floats: those of AMX keep 17 bits.
  const test::ScopedVariable exact_products("LOWBIT_CPU_ISA", "avx2");
  Golden golden;
  golden.run(1, {.clip = false});
  BlockResult exact;
  for (int i = 0; i < kBlockLinears; ++i) {
    const BlockWeights::Linear& linear = golden.block.linears[i];
    exact[i] = dense_f32(linear.weight, linear.rows, linear.cols);
  }
  EXPECT_LT(golden.error_of(exact), 1e-6);
}

TEST(Awq, BeatsRoundingToNearest) {
  Golden golden, plain;
  BlockResult rtn;
  for (int i = 0; i < kBlockLinears; ++i) {
    const BlockWeights::Linear& linear = plain.block.linears[i];
    rtn[i] = Rtn().quantize({linear.name, linear.rows, linear.cols, linear.weight, nullptr},
                            int_scheme(4, 32, Zero::kInt));
  }
  const double awq = golden.error_of(golden.run(1));
  EXPECT_LT(awq, 0.95 * plain.error_of(rtn));
}

TEST(Awq, DoesNotDependOnThreads) {
  Golden one;
  const BlockResult expected = one.run(1);
  for (const int threads : {2, 5}) {
    Golden many;
    const BlockResult found = many.run(threads);
    EXPECT_EQ(many.block.input_norm, one.block.input_norm);
    for (int i = 0; i < kBlockLinears; ++i)
      EXPECT_EQ(dequantize(found[i]), dequantize(expected[i]));
  }
}

TEST(Awq, AChannelThatIsAlwaysZeroDoesNoHarm) {
  Golden golden;
  for (int64_t s = 0; s < 3; ++s) {
    for (float& value : golden.input.sample(s)) value = 0;
  }
  for (const QTensor& weight : golden.run(1)) {
    for (const float value : dequantize(weight)) EXPECT_TRUE(std::isfinite(value));
  }
  for (const float value : golden.block.input_norm) EXPECT_TRUE(std::isfinite(value));
}

}  // namespace
}  // namespace lowbit

#include "lowbit/quantize/autoround.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/learned_rounding.h"
#include "lowbit/quantize/learning.h"
#include "lowbit/quantize/rtn.h"
#include "support/random.h"

namespace lowbit {
namespace {

constexpr int64_t kHidden = 32, kWide = 64, kSamples = 6, kTokens = 24;

BlockWeights random_block() {
  BlockWeights block;
  const int64_t sizes[kBlockLinears][2] = {{32, kHidden},   {16, kHidden},    {16, kHidden},
                                           {kHidden, 32},   {kWide, kHidden}, {kWide, kHidden},
                                           {kHidden, kWide}};
  for (size_t i = 0; i < kBlockLinears; ++i) {
    const auto [rows, cols] = sizes[i];
    block.linears[i] = {concat("linear ", i), rows, cols, test::gaussian(rows * cols, 10 + i), {}};
    for (float& value : block.linears[i].weight) value *= 0.2f;
  }
  block.input_norm.assign(kHidden, 1.f);
  block.post_attention_norm.assign(kHidden, 1.f);
  block.attention = {4, 2, 8, 0};
  block.hidden = kHidden;
  block.intermediate = kWide;
  block.eps = 1e-5f;
  return block;
}

// A block, its calibration data, and what the original makes of it.
struct Setting {
  explicit Setting(int bits, Zero zero = Zero::kNone, int threads = 2)
      : pool(threads),
        block(random_block()),
        input(kSamples, kTokens, kHidden),
        target(kSamples, kTokens, kHidden) {
    schemes.fill(int_scheme(bits, 16, zero));
    const std::vector<float> x = test::gaussian(kSamples * kTokens * kHidden, 3);
    std::copy(x.begin(), x.end(), input.sample(0).begin());
    run(block, [&](int64_t s, std::span<const float> y) {
      std::copy(y.begin(), y.end(), target.sample(s).begin());
    });
  }

  template <typename Use>
  void run(const BlockWeights& weights, const Use& use) {
    DecoderBlock decoder(weights, rope, pool);
    BlockTrace trace;
    std::vector<float> y(kTokens * kHidden);
    for (int64_t s = 0; s < kSamples; ++s) {
      decoder.forward({1, kTokens}, input.sample(s), trace, y);
      use(s, y);
    }
  }

  BlockJob job() {
    return {.index = 0,
            .block = block,
            .schemes = schemes,
            .rope = rope,
            .quantized_input = &input,
            .original_input = nullptr,
            .target = &target,
            .pool = pool,
            .learning = *learning,
            .seed = 1,
            .progress = nullptr,
            .notice = nullptr};
  }

  // Squared error of the block's output with these weights.
  double error(const BlockResult& result) {
    BlockWeights weights = block;
    for (size_t i = 0; i < kBlockLinears; ++i) weights.linears[i].weight = dequantize(result[i]);
    double sum = 0;
    run(weights, [&](int64_t s, std::span<const float> y) {
      for (size_t i = 0; i < y.size(); ++i) {
        const double difference = double{y[i]} - target.sample(s)[i];
        sum += difference * difference;
      }
    });
    return sum;
  }

  BlockResult rounded_to_nearest() {
    BlockResult result;
    for (size_t i = 0; i < kBlockLinears; ++i) {
      const BlockWeights::Linear& linear = block.linears[i];
      result[i] = Rtn(Rtn::Search::kScale)
                      .quantize({linear.name, linear.rows, linear.cols, linear.weight}, schemes[i]);
    }
    return result;
  }

  ThreadPool pool;
  std::unique_ptr<Learning> learning = make_learning("cpu", pool);
  std::shared_ptr<const RopeTables> rope =
      std::make_shared<RopeTables>(rope_tables({}, 8, kTokens));
  BlockWeights block;
  std::array<QuantScheme, kBlockLinears> schemes;
  HiddenStates input, target;
};

AutoRoundOptions quick(int64_t iterations) {
  AutoRoundOptions options;
  options.iterations = iterations;
  options.batch_size = 3;
  return options;
}

void expect_far_less_error(int bits, Zero zero) {
  Setting setting(bits, zero);
  BlockJob job = setting.job();
  const BlockResult result = AutoRound(quick(120)).quantize(job);
  for (size_t i = 0; i < kBlockLinears; ++i) {
    validate(result[i], "result");
    EXPECT_EQ(result[i].scheme, setting.schemes[i]);
  }
  EXPECT_LT(setting.error(result), 0.7 * setting.error(setting.rounded_to_nearest()));
}

TEST(AutoRound, BeatsRoundingToNearestFar) { expect_far_less_error(4, Zero::kNone); }
TEST(AutoRound, BeatsRoundingToNearestAtThreeBits) { expect_far_less_error(3, Zero::kNone); }
TEST(AutoRound, BeatsRoundingToNearestWithZeroPoints) { expect_far_less_error(4, Zero::kInt); }

TEST(AutoRound, BytesDoNotDependOnThreads) {
  Setting one(3, Zero::kInt, 1), three(3, Zero::kInt, 3);
  BlockJob first = one.job(), second = three.job();
  const BlockResult a = AutoRound(quick(8)).quantize(first);
  const BlockResult b = AutoRound(quick(8)).quantize(second);
  for (size_t i = 0; i < kBlockLinears; ++i) {
    EXPECT_EQ(a[i].scales, b[i].scales);
    EXPECT_EQ(a[i].zeros, b[i].zeros);
    EXPECT_EQ(dequantize(a[i]), dequantize(b[i]));
  }
}

TEST(AutoRound, LeavesDenseLinearsAlone) {
  Setting setting(4);
  setting.schemes[kDown] = dense_scheme(Code::kF16);
  BlockJob job = setting.job();
  const BlockResult result = AutoRound(quick(2)).quantize(job);
  EXPECT_EQ(result[kDown].rows, 0);
  EXPECT_EQ(result[kUp].rows, kWide);
}

TEST(AutoRound, RefusesWhatItCannotMake) {
  EXPECT_THROW(AutoRound(quick(0)), Error);
  Setting setting(4);
  setting.block.linears[kGate].weight[40] = std::numeric_limits<float>::quiet_NaN();
  BlockJob job = setting.job();
  try {
    AutoRound(quick(1)).quantize(job);
    FAIL() << "a NaN was quantized";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("linear 4"), std::string::npos) << error.what();
  }
  Setting odd(4);
  odd.schemes.fill(int_scheme(4, 24));
  BlockJob odd_job = odd.job();
  EXPECT_THROW(AutoRound(quick(1)).quantize(odd_job), Error);
}

// One linear whose loss is that of its own output: the gradient for the weight is exact.
TEST(LearnedRounding, DescendsAndKeepsWhatItEncodes) {
  for (const Zero zero : {Zero::kNone, Zero::kInt}) {
    ThreadPool pool(1);
    const BlockWeights::Linear linear = {"linear", 8, 64, test::gaussian(8 * 64, 1), {}};
    const std::vector<float> importance(64, 1.f);
    LearnedRounding rounding(linear, int_scheme(3, 32, zero), importance, pool);
    std::vector<float> weight(linear.weight.size()), input = test::gaussian(64, 2);
    const auto output_error = [&](int64_t row) {
      float sum = 0;
      for (int64_t k = 0; k < 64; ++k) {
        sum += (weight[row * 64 + k] - linear.weight[row * 64 + k]) * input[k];
      }
      return sum;
    };
    double first = 0, last = 0;
    for (int i = 0; i < 50; ++i) {
      rounding.dequantize(weight);
      std::vector<float> gradient(weight.size());
      last = 0;
      for (int64_t row = 0; row < 8; ++row) {
        const float error = output_error(row);
        last += double{error} * error;
        for (int64_t k = 0; k < 64; ++k) gradient[row * 64 + k] = error * input[k];
      }
      if (i == 0) first = last;
      rounding.descend(gradient, 0.02f * (1.f - static_cast<float>(i) / 50));
    }
    EXPECT_LT(last, 0.2 * first);
    rounding.dequantize(weight);
    EXPECT_EQ(dequantize(rounding.encode()), weight);
  }
}

}  // namespace
}  // namespace lowbit

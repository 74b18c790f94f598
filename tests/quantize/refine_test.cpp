// The pass over the whole model: its loss, its optimizer, and the method "best" in the pipeline.
#include "lowbit/quantize/refine.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/quantize/calibrated_blocks.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/divergence_loss.h"
#include "lowbit/quantize/fault.h"
#include "lowbit/quantize/learning.h"
#include "lowbit/quantize/pipeline.h"
#include "support/quantize_runs.h"
#include "support/random.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

constexpr int64_t kHidden = 16, kVocab = 40, kTokens = 5;

std::vector<float> random_values(int64_t count, uint64_t seed, float scale) {
  std::vector<float> values = test::gaussian(static_cast<size_t>(count), seed);
  for (float& value : values) value *= scale;
  return values;
}

TEST(DivergenceLoss, IsTheDivergenceOfTheDistributions) {
  ThreadPool pool(2);
  const std::vector<float> norm(kHidden, 1.f), head = random_values(kVocab * kHidden, 1, 0.4f);
  const std::vector<float> x = random_values(kHidden, 2, 1.f), y = random_values(kHidden, 3, 1.f);
  const auto log_softmax = [&](const std::vector<float>& state) {
    double squares = 0, sum = 0;
    for (const float value : state) squares += double{value} * value;
    std::vector<double> logits(kVocab);
    for (int64_t v = 0; v < kVocab; ++v) {
      for (int64_t k = 0; k < kHidden; ++k) logits[v] += double{head[v * kHidden + k]} * state[k];
      logits[v] /= std::sqrt(squares / kHidden + 1e-5);
      sum += std::exp(logits[v]);
    }
    for (double& logit : logits) logit -= std::log(sum);
    return logits;
  };
  const std::vector<double> p = log_softmax(y), q = log_softmax(x);
  double expected = 0;
  for (int64_t v = 0; v < kVocab; ++v) expected += std::exp(p[v]) * (p[v] - q[v]);
  std::vector<float> dx(kHidden);
  EXPECT_NEAR(DivergenceLoss(norm, 1e-5f, head, pool).differentiate(x, y, dx), expected, 1e-5);
}

TEST(DivergenceLoss, HasTheGradientOfItsSlopes) {
  ThreadPool pool(2);
  std::vector<float> norm = random_values(kHidden, 4, 0.2f);
  for (float& value : norm) value += 1;
  DivergenceLoss loss(norm, 1e-5f, random_values(kVocab * kHidden, 1, 0.6f), pool);
  std::vector<float> x = random_values(kTokens * kHidden, 2, 1.f);
  const std::vector<float> target = random_values(kTokens * kHidden, 3, 1.f);
  std::vector<float> dx(x.size()), unused(x.size());
  loss.differentiate(x, target, dx);
  for (size_t i = 0; i < x.size(); i += 7) {
    const float before = x[i], step = 1e-2f;
    x[i] = before + step;
    const double above = loss.differentiate(x, target, unused);
    x[i] = before - step;
    const double below = loss.differentiate(x, target, unused);
    x[i] = before;
    EXPECT_NEAR(dx[i], (above - below) / (2 * double{step}), 2e-4) << i;
  }
  EXPECT_NEAR(loss.differentiate(target, target, dx), 0, 1e-6);
  for (const float slope : dx) EXPECT_NEAR(slope, 0, 1e-6);
}

TEST(LearnedRounding, GoesOnFromAState) {
  ThreadPool pool(2);
  for (const Zero zero : {Zero::kNone, Zero::kInt}) {
    const BlockWeights::Linear linear{"w", 8, 64, random_values(8 * 64, 1, 0.1f), {}};
    const QuantScheme scheme = int_scheme(3, 32, zero);
    LearnedRounding first(linear, scheme, std::vector<float>(64, 1.f), pool);
    first.descend(random_values(8 * 64, 2, 1.f), 0.3f);
    LearnedRounding second(linear, scheme, first.state(), pool);
    EXPECT_EQ(dequantize(second.encode()), dequantize(first.encode()));
    RoundingState other = first.state();
    other.stretch.pop_back();
    EXPECT_THROW(LearnedRounding(linear, scheme, other, pool), Error);
  }
}

// Adam's first step is its rate in the direction of each slope, however small.
TEST(LearnedRounding, TakesStepsOfAdam) {
  ThreadPool pool(1);
  const BlockWeights::Linear linear{"w", 1, 32, random_values(32, 1, 0.1f), {}};
  LearnedRounding rounding(linear, int_scheme(4, 32), std::vector<float>(32, 1.f), pool);
  const std::vector<float> slopes = random_values(32, 2, 1e-3f);
  const std::vector<float> before = dequantize(rounding.encode());
  rounding.adam(slopes, {.number = 1, .rate = 0.1f, .range_rate = 0});
  const float sign = rounding.state().first[0] > 0 ? 1.f : -1.f;
  int moved = 0;
  for (size_t i = 0; i < slopes.size(); ++i) {
    const float offset = rounding.state().offsets[i];
    if (offset == 0) continue;  // beyond the last code
    EXPECT_NEAR(offset, slopes[i] > 0 ? -0.1f * sign : 0.1f * sign, 1e-3) << i;
    ++moved;
  }
  EXPECT_GT(moved, 28);
  EXPECT_EQ(rounding.state().stretch[0], 1.f);
}

class Best : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_folder(model(), test::tinier_folder_config());
    std::string text;
    test::Random random(7);
    for (int i = 0; i < 2000; ++i) text += static_cast<char>('a' + random.below(26));
    test::write_text(folder_ / "text.txt", text);
    options_.method = "best";
    options_.bits = 3;
    options_.group_size = 32;
    options_.threads = 1;
    options_.commit_seconds = 0;
    options_.calibration = {.path = folder_ / "text.txt", .samples = 4, .seqlen = 16};
    options_.method_options.autoround.iterations = 2;
    options_.method_options.refine = {.steps = 2, .rate = 0.05, .range_rate = 0.01};
  }
  void TearDown() override { fault_hook = nullptr; }

  std::string model() const { return folder_ / "model"; }
  std::string out() const { return folder_ / "out"; }
  std::map<std::string, std::string> made(const QuantizeOptions& options) const {
    fs::remove_all(out());
    quantize_checkpoint(model(), out(), options);
    return test::snapshot(out());
  }

  test::TemporaryFolder folder_;
  QuantizeOptions options_;
};

TEST_F(Best, BytesDoNotDependOnThreads) {
  for (const bool symmetric : {true, false}) {
    options_.symmetric = symmetric;
    options_.threads = 1;
    const auto expected = made(options_);
    options_.threads = 3;
    EXPECT_EQ(made(options_), expected);
  }
}

TEST_F(Best, GivesTheSameBytesWhereverItWasKilled) {
  const auto expected = made(options_);
  test::expect_same_bytes_when_killed(model(), out(), options_, 17, expected);
}

// The refinement's own measure, on the data that it sees, of a model of rounded blocks.
TEST_F(Best, MakesTheDivergenceSmaller) {
  const auto checkpoint = open_checkpoint(model());
  const ModelConfig config = parse_model_config(checkpoint->config(), nullptr, "test");
  const CalibrationData data =
      load_calibration(options_.calibration, Tokenizer(checkpoint->tokenizer()), 64);
  ThreadPool pool(2);
  const auto rope = std::make_shared<RopeTables>(rope_tables(config.rope, config.head_dim, 16));
  HiddenStates target(4, 16, config.hidden_size);
  embed_samples(*checkpoint, config, data, {&target}, pool);
  std::vector<double> losses;
  const auto refinement =
      make_learning("cpu", pool)
          ->refinement({.checkpoint = *checkpoint,
                        .config = config,
                        .data = data,
                        .target = target,
                        .rope = rope,
                        .pool = pool,
                        .seed = 1,
                        .progress = [&](double, const std::string& note) {
                          losses.push_back(std::stod(note.substr(note.rfind(' '))));
                        }});
  for (int64_t index = 0; index < config.num_hidden_layers; ++index) {
    BlockWeights block = load_block_weights(*checkpoint, config, index);
    DecoderBlock decoder(block, rope, pool);
    BlockTrace trace;
    std::vector<float> output(16 * config.hidden_size);
    for (int64_t s = 0; s < 4; ++s) {
      decoder.forward({1, 16}, target.sample(s), trace, output);
      std::copy(output.begin(), output.end(), target.sample(s).begin());
    }
    BlockSchemes schemes;
    schemes.fill(int_scheme(2, 32));
    BlockRoundings roundings;
    for (size_t n = 0; n < kBlockLinears; ++n) {
      const BlockWeights::Linear& linear = block.linears[n];
      roundings[n] =
          LearnedRounding(linear, schemes[n],
                          std::vector<float>(static_cast<size_t>(linear.cols), 1.f), pool)
              .state();
    }
    refinement->add_block(std::move(block), schemes, std::move(roundings));
  }
  refinement->run({.steps = 60, .rate = 0.02, .range_rate = 0.005});
  ASSERT_EQ(losses.size(), 60u);
  EXPECT_LT(losses.back(), 0.6 * losses.front());
}

}  // namespace
}  // namespace lowbit

// SmoothQuant's folding, and its ways to round inputs.
#include "lowbit/quantize/smoothquant.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/learning.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/quantize/smoothing.h"
#include "lowbit/tensor/input_rounding.h"
#include "lowbit/verify/verify.h"
#include "support/backends.h"
#include "support/quantize_runs.h"
#include "support/random.h"
#include "support/tiny_folder.h"
#include "support/weights.h"

namespace lowbit {
namespace {

class Smoothing : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_folder(model(), test::tinier_folder_config());
    std::string text;
    for (int i = 0; i < 300; ++i) text += concat("word ", i * i % 71, i % 9 == 0 ? ".\n" : " ");
    test::write_text(folder_ / "text.txt", text);
    const auto checkpoint = open_checkpoint(model());
    const ModelConfig config = parse_model_config(checkpoint->config(), nullptr, "test");
    rope_ = std::make_shared<RopeTables>(rope_tables(config.rope, config.head_dim, kTokens));
    block_ = load_block_weights(*checkpoint, config, 0);
    // Channels that are much larger than the others, as in real models.
    for (size_t k = 3; k < block_.input_norm.size(); k += 17) {
      block_.input_norm[k] *= 30;
      block_.post_attention_norm[k] *= 20;
    }
    for (int64_t n = 5; n < block_.linears[kUp].rows; n += 23) {
      for (int64_t k = 0; k < 64; ++k) block_.linears[kUp].weight[n * 64 + k] *= 25;
    }
    for (int64_t k = 0; k < 64; ++k) block_.linears[kV].weight[7 * 64 + k] *= 20;
    const std::vector<float> x = test::gaussian(kTokens * 64, 1);
    std::copy(x.begin(), x.end(), input_.sample(0).begin());
  }
  std::string model() const { return folder_ / "model"; }
  std::string out() const { return folder_ / "out"; }

  BlockJob job(BlockWeights& block) {
    BlockJob job{.block = block,
                 .schemes = {},
                 .rope = rope_,
                 .original_input = &input_,
                 .pool = pool_,
                 .learning = *learning_,
                 .progress = [](double, const std::string&) {},
                 .notice = [](const std::string&) {}};
    for (int i = 0; i < kBlockLinears; ++i) {
      job.schemes[i] = int_scheme(8, block.linears[i].cols);
      job.schemes[i].input_bits = 8;
    }
    return job;
  }

  std::vector<float> output(const BlockWeights& block, BlockTrace& trace) {
    DecoderBlock whole(block, rope_, pool_);
    std::vector<float> y(kTokens * 64);
    whole.forward({1, kTokens}, input_.sample(0), trace, y);
    return y;
  }

  static constexpr int64_t kTokens = 32;
  test::TemporaryFolder folder_;
  ThreadPool pool_{1};
  std::unique_ptr<Learning> learning_ = make_learning("cpu", pool_);
  std::shared_ptr<const RopeTables> rope_;
  BlockWeights block_;
  HiddenStates input_{1, kTokens, 64};
};

TEST_F(Smoothing, FoldingChangesNothingThatTheBlockComputes) {
  BlockTrace trace;
  const std::vector<float> before = output(block_, trace);
  for (const LinearGroup group : {kAttentionInput, kMlpInput}) {
    std::vector<float> maxima(trace.inputs[group].size() / kTokens, 1.f);
    for (size_t k = 0; k < maxima.size(); ++k) maxima[k] = 1 + static_cast<float>(k * 37 % 50);
    BlockWeights folded = block_;
    fold_smoothing(folded, group, smoothing_scales(block_, group, maxima, 0.6));
    BlockTrace other;
    EXPECT_LT(test::relative_error(output(folded, other), before), 1e-5) << group;
    EXPECT_GT(test::relative_error(other.inputs[group], trace.inputs[group]), 0.1) << group;
  }
}

TEST_F(Smoothing, StaticInputsHoldTheirRange) {
  for (const InputForm form : {InputForm::kStatic, InputForm::kStaticZero}) {
    BlockWeights block = block_;
    BlockJob one = job(block);
    for (QuantScheme& scheme : one.schemes) scheme.input_form = form;
    const BlockResult result = SmoothQuant(SmoothQuantOptions{}).quantize(one);
    BlockTrace trace;
    output(block, trace);
    for (int i = 0; i < kBlockLinears; ++i) {
      const std::vector<float>& x = trace.input_of(i);
      std::vector<float> rounded(x.size());
      round_input_values(input_rounding(result[i]), x.data(), static_cast<int64_t>(x.size()),
                         rounded.data());
      for (size_t k = 0; k < x.size(); ++k) {
        ASSERT_LE(std::fabs(rounded[k] - x[k]), 1.01f * result[i].input_scale) << i;
      }
    }
  }
}

TEST_F(Smoothing, EverySchemeOfInputsComesThroughThePipeline) {
  for (const InputForm form :
       {InputForm::kToken, InputForm::kTokenZero, InputForm::kStatic, InputForm::kStaticZero}) {
    QuantizeOptions options;
    options.method = "smoothquant";
    options.input_form = form;
    options.threads = 1;
    options.force = true;
    options.calibration = {.path = folder_ / "text.txt", .samples = 3, .seqlen = 32};
    quantize_checkpoint(model(), out(), options);
    const QTensor weight =
        open_checkpoint(out())->load_linear("model.layers.1.mlp.down_proj", 64, 96).weight;
    EXPECT_EQ(weight.scheme.input_form, form);
    EXPECT_EQ(weight.input_scale > 0, has_static_inputs(weight.scheme));
    EXPECT_TRUE(verify_checkpoint(out(), model(), 1).problems.empty());
    const auto expected = test::snapshot(out());
    options.threads = 2;
    quantize_checkpoint(model(), out(), options);
    EXPECT_EQ(test::snapshot(out()), expected);
  }
}

TEST_F(Smoothing, StaticInputsNeedAMethodThatMeasuresThem) {
  QuantizeOptions options;
  options.method = "rtn";
  options.bits = 8;
  options.group_size = 32;
  options.input_bits = 8;
  options.format = "compressed-tensors";
  options.input_form = InputForm::kStatic;
  EXPECT_NE(test::quantize_error(model(), out(), options).find("smoothquant"), std::string::npos);
  options.input_bits = 16;
  EXPECT_NE(test::quantize_error(model(), out(), options).find("--activation-bits"),
            std::string::npos);
  options.input_bits = 8;
  options.input_form = InputForm::kTokenZero;
  EXPECT_EQ(test::quantize_error(model(), out(), options), "");
}

}  // namespace
}  // namespace lowbit

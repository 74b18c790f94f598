#include "lowbit/eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/eval/log_softmax.h"
#include "support/tiny_model.h"
#include "support/tiny_tokenizer.h"

namespace lowbit {
namespace {

double slow_nll(const float* logits, int64_t vocab, int32_t token) {
  long double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp((long double)logits[i] - logits[token]);
  return double(std::log(sum));
}

TEST(NegativeLogLikelihood, EqualsItsDefinition) {
  for (const float spread : {0.01f, 1.f, 10.f, 60.f}) {
    for (const size_t vocab : {1u, 7u, 256u, 1000u, 49152u}) {
      std::vector<float> logits = test::gaussian(vocab, vocab);
      for (float& logit : logits) logit = logit * spread + 100;
      for (const size_t token : {size_t{0}, vocab / 2, vocab - 1}) {
        const double expected = slow_nll(logits.data(), int64_t(vocab), int32_t(token));
        EXPECT_NEAR(negative_log_likelihood(logits, int32_t(token)), expected, 2e-6)
            << vocab << " " << spread;
      }
    }
  }
}

TEST(NegativeLogLikelihood, SpreadsNanAndForgivesMasks) {
  std::vector<float> logits = {1, 2, 3};
  logits[2] = -INFINITY;
  EXPECT_NEAR(negative_log_likelihood(logits, 1), std::log(1 + std::exp(-1.0)), 1e-6);
  logits[2] = NAN;
  EXPECT_TRUE(std::isnan(negative_log_likelihood(logits, 1)));
}

class Perplexity : public testing::Test {
 protected:
  static Json config() {
    Json config = test::tiny_goldens().model("llama").config;
    config["vocab_size"] = 101;
    return config;
  }
  // nll of predictions [first, context - 1) of every window, by whole-window passes.
  std::vector<double> slowly(std::vector<int32_t> ids, int64_t context, int64_t first,
                             int32_t first_token) {
    std::vector<double> nlls;
    for (size_t begin = 0; begin + context <= ids.size(); begin += context) {
      std::vector<int32_t> window(ids.begin() + begin, ids.begin() + begin + context);
      if (first_token >= 0) window[0] = first_token;
      const std::vector<float> logits = test::run_chunks(model_, window, {1}, DType::kF16);
      for (int64_t i = first; i + 1 < context; ++i) {
        nlls.push_back(slow_nll(logits.data() + i * 101, 101, window[i + 1]));
      }
    }
    return nlls;
  }
  void expect_equal(const PerplexityResult& result, const std::vector<double>& nlls) {
    double sum = 0, squares = 0;
    for (const double nll : nlls) sum += nll, squares += nll * nll;
    const double count = double(nlls.size()), mean = sum / count;
    EXPECT_EQ(result.tokens, int64_t(nlls.size()));
    EXPECT_NEAR(result.ppl, std::exp(mean), 1e-5 * std::exp(mean));
    const double deviation = std::sqrt((squares / count - mean * mean) / (count - 1));
    EXPECT_NEAR(result.stderr_ppl, std::exp(mean) * deviation, 1e-4 * result.stderr_ppl);
  }
  PerplexityResult run(const Tokenizer& tokenizer, const WindowOptions& options) {
    return perplexity(model_, tokenizer, text_, options);
  }

  const std::string text_ =
      "The quick brown fox jumps over the lazy dog; <s> is a token, caf\u00e9 is not.\n"
      "Pack my box with five dozen liquor jugs.";
  std::unique_ptr<Backend> backend_ = make_backend("ref", {1, Activations::kDefault});
  test::TinyCheckpoint checkpoint_{config()};
  Model model_{checkpoint_, *backend_, {.context = 64, .max_batch = 7, .progress = false}};
  Tokenizer plain_{test::tiny_tokenizer_spec()};
  Tokenizer with_bos_{test::tiny_tokenizer_spec(true)};
};

TEST_F(Perplexity, HfScoresEveryPositionOfEveryWindow) {
  const std::vector<int32_t> ids = with_bos_.encode(text_);
  ASSERT_EQ(ids[0], test::kTinyBos);
  const PerplexityResult result = run(with_bos_, {.protocol = "hf", .context = 20});
  expect_equal(result, slowly(ids, 20, 0, -1));
  EXPECT_EQ(result.chunks, int64_t(ids.size()) / 20);
  EXPECT_EQ(result.tokens, result.chunks * 19);
}

TEST_F(Perplexity, LlamaCppScoresSecondHalvesAfterBos) {
  const EncodeOptions no_special{.parse_special = false};
  expect_equal(run(with_bos_, {.protocol = "llama.cpp", .context = 20}),
               slowly(with_bos_.encode(text_, no_special), 20, 10, test::kTinyBos));
  // A tokenizer that adds no BOS leaves the first token alone.
  const PerplexityResult result = run(plain_, {.protocol = "llama.cpp", .context = 20});
  expect_equal(result, slowly(plain_.encode(text_, no_special), 20, 10, -1));
  EXPECT_EQ(result.tokens, result.chunks * 9);
}

TEST_F(Perplexity, MixqAlwaysPutsBosAndRoundsProbabilities) {
  std::vector<double> nlls = slowly(plain_.encode(text_), 20, 10, test::kTinyBos);
  for (double& nll : nlls) {
    nll = -std::log(f16_to_f32(f32_to_f16(static_cast<float>(std::exp(-nll)))));
  }
  expect_equal(run(plain_, {.protocol = "mixq", .context = 20}), nlls);
}

TEST_F(Perplexity, ChunksLimitTheText) {
  const PerplexityResult all = run(plain_, {.protocol = "hf", .context = 20});
  const PerplexityResult two = run(plain_, {.protocol = "hf", .context = 20, .chunks = 2});
  EXPECT_EQ(two.chunks, 2);
  ASSERT_EQ(two.chunk_nll.size(), 2u);
  EXPECT_EQ(two.chunk_nll[1], all.chunk_nll[1]);
  EXPECT_NEAR(std::log(two.ppl), (two.chunk_nll[0] + two.chunk_nll[1]) / 2, 1e-12);
}

TEST_F(Perplexity, RefusesWhatTheProtocolsDoNotAllow) {
  EXPECT_THROW(run(plain_, {.protocol = "gptq"}), Error);
  EXPECT_THROW(run(plain_, {.protocol = "hf", .context = 65}), Error);
  EXPECT_THROW(run(plain_, {.protocol = "hf"}), Error);  // 2048, more than the model's context
  EXPECT_THROW(run(plain_, {.protocol = "hf", .context = 20, .chunks = 0}), Error);
  EXPECT_NO_THROW(perplexity(model_, plain_, std::string(20, 'a'), {.context = 20}));
  EXPECT_THROW(perplexity(model_, plain_, std::string(19, 'a'), {.context = 20}), Error);
  EXPECT_THROW(
      perplexity(model_, plain_, std::string(39, 'a'), {.protocol = "llama.cpp", .context = 20}),
      Error);
}

TEST_F(Perplexity, DamagedWeightsAreAnErrorNotANumber) {
  test::TinyCheckpoint damaged(config());
  std::vector<float> values = dequantize(damaged.linear("lm_head").weight);
  values[5] = NAN;
  damaged.linear("lm_head").weight = dense_f32(values, 101, 64);
  Model model(damaged, *backend_, {.context = 64, .progress = false});
  EXPECT_THROW(perplexity(model, plain_, text_, {.context = 20}), Error);
}

}  // namespace
}  // namespace lowbit

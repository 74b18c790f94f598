#include "lowbit/eval/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/eval/log_softmax.h"
#include "lowbit/eval/perplexity.h"
#include "support/files.h"
#include "support/tiny_model.h"
#include "support/tiny_tokenizer.h"

namespace lowbit {
namespace {

// In long double, from the definition.
double slow_kl(const std::vector<float>& p_logits, const std::vector<float>& q_logits) {
  long double p_sum = 0, q_sum = 0, kl = 0;
  for (const float logit : p_logits) p_sum += std::exp((long double)logit);
  for (const float logit : q_logits) q_sum += std::exp((long double)logit);
  for (size_t i = 0; i < p_logits.size(); ++i) {
    const long double log_p = p_logits[i] - std::log(p_sum);
    kl += std::exp(log_p) * (log_p - (q_logits[i] - std::log(q_sum)));
  }
  return double(kl);
}

std::vector<float> log_softmax(const std::vector<float>& logits) {
  const double normalizer = log_sum_exp(logits);
  std::vector<float> log_p = logits;
  for (float& value : log_p) value = float(value - normalizer);
  return log_p;
}

TEST(KlDivergence, EqualsItsDefinition) {
  for (const size_t vocab : {2u, 7u, 256u, 1000u, 49152u}) {
    std::vector<float> p = test::gaussian(vocab, 1), q = test::gaussian(vocab, 2);
    for (float& logit : q) logit = 2 * logit + 30;
    EXPECT_NEAR(kl_divergence(log_softmax(p), q), slow_kl(p, q), 1e-5 * slow_kl(p, q)) << vocab;
    EXPECT_NEAR(kl_divergence(log_softmax(p), p), 0, 1e-6) << vocab;
  }
}

TEST(KlDivergence, SpreadsNanAndInfinity) {
  const std::vector<float> log_p = log_softmax({1, 2, 3});
  EXPECT_TRUE(std::isnan(kl_divergence(log_p, std::vector<float>{1, NAN, 2})));
  EXPECT_TRUE(std::isinf(kl_divergence(log_p, std::vector<float>{1, -INFINITY, 2})));
}

class Divergence : public testing::Test {
 protected:
  static constexpr int64_t kVocab = 101;
  static Json config(const char* family) {
    Json config = test::tiny_goldens().model(family).config;
    config["vocab_size"] = kVocab;
    return config;
  }
  std::vector<float> logits_of(Model& model, const int32_t* window, int64_t context) {
    return test::run_chunks(model, {window, window + context}, {1}, DType::kF16);
  }

  const std::string text_ =
      "The quick brown fox jumps over the lazy dog; caf\u00e9 is not a token.\n"
      "Pack my box with five dozen liquor jugs.";
  std::unique_ptr<Backend> backend_ = make_backend("ref", {1, Activations::kDefault});
  test::TinyCheckpoint checkpoint_{config("llama")}, other_{config("qwen2")};
  Model model_{other_, *backend_, {.context = 64, .max_batch = 7, .progress = false}};
  Model reference_{checkpoint_, *backend_, {.context = 64, .max_batch = 5, .progress = false}};
  Tokenizer tokenizer_{test::tiny_tokenizer_spec()};
  WindowOptions options_{.protocol = "llama.cpp", .context = 20};
  test::TemporaryFolder folder_;
};

TEST_F(Divergence, EqualsItsDefinitionPositionByPosition) {
  const Windows windows = make_windows(tokenizer_, text_, options_, 64);
  std::vector<double> kls, deltas;
  double same = 0;
  for (int64_t w = 0; w < windows.count; ++w) {
    const std::vector<float> q = logits_of(model_, windows.window(w), 20);
    const std::vector<float> p = logits_of(reference_, windows.window(w), 20);
    for (int64_t i = 10; i < 19; ++i) {
      const std::vector<float> q_row(q.begin() + i * kVocab, q.begin() + (i + 1) * kVocab);
      const std::vector<float> p_row(p.begin() + i * kVocab, p.begin() + (i + 1) * kVocab);
      const int32_t target = windows.window(w)[i + 1];
      kls.push_back(slow_kl(p_row, q_row));
      deltas.push_back(std::exp(-negative_log_likelihood(q_row, target)) -
                       std::exp(-negative_log_likelihood(p_row, target)));
      same += std::max_element(q_row.begin(), q_row.end()) - q_row.begin() ==
              std::max_element(p_row.begin(), p_row.end()) - p_row.begin();
    }
  }
  const DivergenceResult result = divergence(model_, reference_, tokenizer_, text_, options_);
  const double count = double(kls.size());
  EXPECT_EQ(result.tokens, int64_t(kls.size()));
  EXPECT_NEAR(result.kl.mean, std::accumulate(kls.begin(), kls.end(), 0.0) / count, 1e-6);
  EXPECT_NEAR(result.delta_p.mean, std::accumulate(deltas.begin(), deltas.end(), 0.0) / count,
              1e-7);
  EXPECT_NEAR(result.same_top.mean, same / count, 1e-12);
  std::sort(kls.begin(), kls.end());
  EXPECT_NEAR(result.kl_quantiles.min, kls.front(), 1e-6);
  EXPECT_NEAR(result.kl_quantiles.max, kls.back(), 1e-6);
  EXPECT_NEAR(result.kl_quantiles.median, (kls[(kls.size() - 1) / 2] + kls[kls.size() / 2]) / 2,
              1e-6);
  EXPECT_NEAR(result.ppl.mean, perplexity(model_, tokenizer_, text_, options_).ppl, 1e-6);
  EXPECT_NEAR(std::log(result.ppl.mean / result.reference_ppl.mean), result.log_ppl_ratio.mean,
              1e-9);
}

TEST_F(Divergence, OfAModelFromItselfIsNothing) {
  const DivergenceResult result =
      divergence(reference_, reference_, tokenizer_, text_, {.protocol = "hf", .context = 20});
  EXPECT_NEAR(result.kl.mean, 0, 1e-6);
  EXPECT_EQ(result.same_top.mean, 1);
}

TEST_F(Divergence, FromSavedLogitsIsTheSameWithinTheirRounding) {
  const fs::path path = folder_ / "reference.kld";
  const DivergenceResult direct = divergence(model_, reference_, tokenizer_, text_, options_, path);
  ASSERT_TRUE(is_logits_file(path));
  const LogitsFile file(path);
  const DivergenceResult later = divergence(model_, file, DType::kF16);
  EXPECT_EQ(later.tokens, direct.tokens);
  EXPECT_NEAR(later.kl.mean, direct.kl.mean, 1e-3 * direct.kl.mean);
  EXPECT_NEAR(later.reference_ppl.mean, direct.reference_ppl.mean, 1e-3);
  EXPECT_EQ(later.ppl.mean, direct.ppl.mean);
  EXPECT_EQ(later.same_top.mean, direct.same_top.mean);
}

TEST_F(Divergence, RefusesWhatCannotBeCompared) {
  EXPECT_THROW(divergence(model_, reference_, tokenizer_, text_, {.protocol = "hf", .context = 20},
                          folder_ / "x"),
               Error);
  Json config = this->config("llama");
  config["vocab_size"] = 102;
  test::TinyCheckpoint larger(config);
  Model model(larger, *backend_, {.context = 64, .progress = false});
  EXPECT_THROW(divergence(model, reference_, tokenizer_, text_, options_), Error);
}

TEST_F(Divergence, DamagedFilesAreErrors) {
  const fs::path path = folder_ / "reference.kld";
  divergence(model_, reference_, tokenizer_, text_, options_, path);
  const std::string good = read_file(path, 1 << 20);
  const auto expect_refused = [&](std::string bytes) {
    test::write_text(path, bytes);
    EXPECT_THROW(LogitsFile{path}, Error);
  };
  for (const size_t length : {size_t{0}, size_t{7}, size_t{19}, size_t{100}, good.size() - 1}) {
    expect_refused(good.substr(0, length));
  }
  expect_refused(good + "x");
  for (const size_t place : {8u, 12u, 16u, 20u}) {  // context, words, windows, the first token
    for (const char byte : {'\xff', '\x7f'}) {
      std::string bytes = good;
      bytes.replace(place, 4, 4, byte);
      expect_refused(bytes);
    }
  }
}

}  // namespace
}  // namespace lowbit

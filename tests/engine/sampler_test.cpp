#include "lowbit/engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "lowbit/base/check.h"
#include "support/logit_answers.h"
#include "support/random.h"

namespace lowbit {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

const std::vector<int32_t> kHistory = {3, 11, 11, 4, 9, 4, 9};
constexpr size_t kPromptTokens = 3;

DrawPoint point_of(const std::vector<int32_t>& history) {
  DrawPoint point;
  point.history = history;
  point.prompt_tokens = static_cast<int64_t>(std::min(kPromptTokens, history.size()));
  return point;
}

// The whole chain, written down as its definition: probabilities by id, in fp64.
std::map<int32_t, double> distribution(std::vector<float> logits, const SamplingParams& params,
                                       const std::vector<int32_t>& history) {
  const size_t back = params.repeat_last_n < 0 ? history.size() : size_t(params.repeat_last_n);
  std::set<int32_t> recent;
  for (size_t i = 0; i < history.size(); ++i) {
    if (i + back >= history.size()) recent.insert(history[i]);
  }
  for (const int32_t id : recent) {
    logits[id] =
        logits[id] > 0 ? logits[id] / params.repeat_penalty : logits[id] * params.repeat_penalty;
  }
  std::map<int32_t, int> answered;
  for (size_t i = kPromptTokens; i < history.size(); ++i) ++answered[history[i]];
  for (const auto& [id, count] : answered) {
    logits[id] -= params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
  }
  for (const auto& [id, bias] : params.logit_bias) {
    logits[id] = bias <= -100 ? -kInfinity : logits[id] + bias;
  }
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < int32_t(logits.size()); ++id) {
    if (logits[id] > -kInfinity) ids.push_back(id);
  }
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (params.top_k > 0) ids.resize(std::min(ids.size(), size_t(params.top_k)));

  const auto softmax = [&](double temperature) {
    std::map<int32_t, double> p;
    double sum = 0;
    for (const int32_t id : ids) {
      sum += p[id] = std::exp((double(logits[id]) - logits[ids[0]]) / temperature);
    }
    for (auto& [id, value] : p) value /= sum;
    return p;
  };
  std::map<int32_t, double> p = softmax(1);
  double sum = 0;
  size_t keep = 0;
  if (params.typical_p < 1) {
    double entropy = 0;
    for (const auto& [id, value] : p) entropy -= value * std::log(value);
    std::vector<int32_t> typical = ids;
    std::stable_sort(typical.begin(), typical.end(), [&](int32_t a, int32_t b) {
      return std::abs(-std::log(p[a]) - entropy) < std::abs(-std::log(p[b]) - entropy);
    });
    while (keep < typical.size() && sum < params.typical_p) sum += p[typical[keep++]];
    typical.resize(keep);
    std::erase_if(ids, [&](int32_t id) {
      return std::find(typical.begin(), typical.end(), id) == typical.end();
    });
    p = softmax(1);
    sum = 0;
    keep = 0;
  }
  while (keep < ids.size() && (keep == 0 || sum < params.top_p)) sum += p[ids[keep++]];
  if (params.top_p < 1) ids.resize(keep);
  p = softmax(1);
  const double bound = params.min_p * p[ids[0]];
  ids.erase(std::remove_if(ids.begin() + 1, ids.end(), [&](int32_t id) { return p[id] < bound; }),
            ids.end());
  return softmax(params.temperature);
}

SamplingParams plain() {
  SamplingParams params;
  params.temperature = 1;
  params.top_k = 0;
  params.top_p = 1;
  params.min_p = 0;
  return params;
}

struct Rule {
  const char* name;
  SamplingParams params;
};
std::vector<Rule> rules() {
  std::vector<Rule> rules(13, {"plain", plain()});
  rules[1] = {"temperature", plain()}, rules[1].params.temperature = 0.6f;
  rules[2] = {"top_k", plain()}, rules[2].params.top_k = 7;
  rules[3] = {"top_p", plain()}, rules[3].params.top_p = 0.8f;
  rules[4] = {"min_p", plain()}, rules[4].params.min_p = 0.1f;
  rules[5] = {"penalty", plain()}, rules[5].params.repeat_penalty = 1.8f;
  rules[5].params.repeat_last_n = 3;
  rules[6] = {"defaults", SamplingParams{}};
  rules[6].params.repeat_penalty = 1.1f;
  rules[7] = {"typical_p", plain()}, rules[7].params.typical_p = 0.7f;
  rules[8] = {"presence", plain()}, rules[8].params.presence_penalty = 1.5f;
  rules[9] = {"frequency", plain()}, rules[9].params.frequency_penalty = 1.2f;
  rules[10] = {"bias", plain()}, rules[10].params.logit_bias = {{1, 3.f}, {2, -100.f}, {5, -2.f}};
  rules[11] = {"cold min_p", plain()}, rules[11].params.min_p = 0.02f;
  rules[11].params.temperature = 0.5f;
  rules[12] = {"hot top_p", plain()}, rules[12].params.top_p = 0.9f;
  rules[12].params.temperature = 1.7f;
  return rules;
}

std::vector<float> logits_of(uint64_t seed, size_t count = 24) {
  std::vector<float> logits = test::gaussian(count, seed);
  for (float& logit : logits) logit *= 2;
  return logits;
}

// 20,000 draws with consecutive seeds against the exact probabilities. The statistic exceeds
// mean + 5 standard deviations once in a million, and the seed is fixed.
TEST(Sampler, DrawsFollowTheExactDistributionOfEveryRule) {
  constexpr int kDraws = 20000;
  for (const Rule& rule : rules()) {
    const std::vector<float> logits = logits_of(5);
    const std::map<int32_t, double> expected = distribution(logits, rule.params, kHistory);
    Sampler sampler;
    std::map<int32_t, int> counts;
    SamplingParams params = rule.params;
    for (params.seed = 0; params.seed < kDraws; ++params.seed) {
      ++counts[sampler.sample(params, logits, point_of(kHistory))];
    }
    for (const auto& [id, count] : counts) {
      EXPECT_TRUE(expected.count(id)) << rule.name << " drew " << id;
    }
    double chi_square = 0;
    for (const auto& [id, p] : expected) {
      const double mean = p * kDraws;
      chi_square += (counts[id] - mean) * (counts[id] - mean) / mean;
    }
    const double freedom = double(expected.size()) - 1;
    EXPECT_LT(chi_square, freedom + 5 * std::sqrt(2 * freedom)) << rule.name;
  }
}

// Which tokens survive, on many random rows, over vocabularies of several chunks.
TEST(Sampler, RulesKeepWhatTheirDefinitionKeeps) {
  test::Random random(8);
  Sampler sampler;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SamplingParams params;
    params.top_k = static_cast<int>(random.below(20));
    params.typical_p =
        random.below(2) == 0 ? 1.f : 0.5f + 0.5f * static_cast<float>(random.uniform());
    params.top_p = 0.05f + 0.95f * static_cast<float>(random.uniform());
    params.min_p = 0.3f * static_cast<float>(random.uniform());
    params.temperature = 5;  // so that whoever survives is drawn
    const std::vector<float> logits = logits_of(seed, 24 + 50 * (seed % 5));
    const std::map<int32_t, double> expected = distribution(logits, params, kHistory);
    std::set<int32_t> drawn;
    for (params.seed = 0; params.seed < 60; ++params.seed) {
      drawn.insert(sampler.sample(params, logits, point_of(kHistory)));
    }
    for (const int32_t id : drawn) EXPECT_TRUE(expected.count(id)) << seed;
    EXPECT_TRUE(expected.size() > 4 || drawn.size() == expected.size()) << seed;
  }
}

// The short ways to the candidates against a sort of everything.
TEST(Sampler, TopKOfAWideRowIsThatOfASort) {
  std::vector<float> maxima;
  std::vector<Candidate> candidates;
  for (const size_t count : {1u, 63u, 64u, 65u, 5000u, 49152u}) {
    std::vector<float> logits = logits_of(count, count);
    for (size_t i = 0; i + 7 < count; i += 7) logits[i + 3] = logits[i];  // ties
    std::vector<Candidate> sorted;
    for (size_t i = 0; i < count; ++i) sorted.emplace_back(logits[i], static_cast<int32_t>(i));
    std::sort(sorted.begin(), sorted.end(), ranks_before);
    chunk_maxima(logits, maxima);
    EXPECT_EQ(highest(logits, maxima), sorted[0].second);
    for (const size_t k : {1u, 2u, 40u, 700u, 900u, 60000u}) {
      select_top_k(logits, maxima, k, candidates);
      ASSERT_EQ(candidates.size(), std::min(k, count));
      EXPECT_TRUE(std::equal(candidates.begin(), candidates.end(), sorted.begin()));
    }
  }
}

TEST(Sampler, TheExponentialIsExact) {
  std::vector<float> x, out(kRowChunk);
  for (float value = 0; value > -90; value -= 0.37f) x.push_back(value);
  for (size_t i = 0; i + kRowChunk <= x.size(); ++i) {
    chunk_exp(std::span(x).subspan(i, kRowChunk), 0, 1, out);
    for (size_t j = 0; j < kRowChunk; ++j) {
      const double expected = std::exp(static_cast<double>(x[i + j]));
      if (x[i + j] < -87) {
        EXPECT_EQ(out[j], 0);
      } else {
        EXPECT_NEAR(out[j] / expected, 1, 3e-7) << x[i + j];
      }
    }
  }
  const std::vector<float> masked(5, -kInfinity);
  chunk_exp(masked, 3, 1, out);
  EXPECT_EQ(out[0], 0);
  EXPECT_EQ(out[4], 0);
}

TEST(Sampler, GreedyTakesTheHighestAndTheLowestIdOnTies) {
  SamplingParams params;
  params.temperature = 0;
  Sampler sampler;
  const std::vector<float> logits = {-1, 3, 2, 3, -kInfinity};
  EXPECT_EQ(sampler.sample(params, logits, {}), 1);
  params.repeat_penalty = 2;
  const std::vector<int32_t> history = {1};
  EXPECT_EQ(sampler.sample(params, logits, point_of(history)), 3);
  EXPECT_EQ(logits[1], 3);  // as it was
}

TEST(Sampler, ADrawDependsOnSeedAndPositionOnly) {
  const std::vector<float> logits = logits_of(1, 1000);
  SamplingParams params = plain();
  params.seed = 42;
  const std::vector<int32_t> history(50, 7);
  Sampler forward, backward;
  const auto draw_at = [&](Sampler& sampler, size_t position) {
    DrawPoint point;
    point.history = std::span(history).first(position);
    return sampler.sample(params, logits, point);
  };
  std::vector<int32_t> a(50), b(50), other(50);
  for (size_t i = 0; i < 50; ++i) a[i] = draw_at(forward, i);
  for (size_t i = 50; i-- > 0;) b[i] = draw_at(backward, i);
  EXPECT_EQ(a, b);
  params.seed = 43;
  for (size_t i = 0; i < 50; ++i) other[i] = draw_at(forward, i);
  EXPECT_NE(a, other);
  EXPECT_EQ(sibling_seed(42, 0), 42u);
  EXPECT_NE(sibling_seed(42, 1), sibling_seed(42, 2));
}

// Written down so that a text can be reproduced on another machine.
TEST(Sampler, TheGeneratorIsFixed) {
  EXPECT_EQ(uniform_at(0, 0), 0x1.4e0dba5e9a32fp-1);
  EXPECT_EQ(uniform_at(42, 7), 0x1.782d47a99890cp-1);
}

TEST(Sampler, TheGeneratorIsUniform) {
  constexpr int kBins = 64, kDraws = 64000;
  for (const uint64_t seed : {0u, 1u, 12345u}) {
    std::vector<int> bins(kBins);
    for (int i = 0; i < kDraws; ++i) ++bins[static_cast<size_t>(uniform_at(seed, i) * kBins)];
    double chi_square = 0;
    for (const int count : bins) chi_square += std::pow(count - 1000.0, 2) / 1000;
    EXPECT_LT(chi_square, 63 + 5 * std::sqrt(2.0 * 63));
  }
}

// Backends that answer questions about rows spare the host the row, never a different token.
TEST(Sampler, AnAnswerAboutARowDrawsWhatTheRowDraws) {
  Sampler sampler;
  std::map<std::string, int> told;
  for (Rule& rule : rules()) {
    for (uint64_t seed = 0; seed < 40; ++seed) {
      const std::vector<float> logits = logits_of(seed, seed % 2 == 0 ? 900 : 30000);
      rule.params.seed = seed;
      const LogitQuery query = query_of(rule.params, 7);
      const LogitAnswer answer = test::answer_on_host(logits, query);
      const std::optional<int32_t> id = sampler.sample(rule.params, answer, 7);
      if (!id) continue;
      ++told[rule.name];
      EXPECT_EQ(*id, sampler.sample(rule.params, logits, point_of(kHistory))) << rule.name;
    }
  }
  for (const char* name : {"plain", "temperature", "top_k"}) EXPECT_EQ(told[name], 40) << name;
  for (const char* name : {"top_p", "min_p"}) EXPECT_GT(told[name], 0) << name;
  for (const char* name : {"penalty", "presence", "bias"}) EXPECT_EQ(told[name], 0) << name;
}

TEST(Sampler, MaskedTokensAreNeverDrawn) {
  std::vector<float> logits(200, -kInfinity);
  logits[156] = -3;
  logits[157] = -4;
  const std::vector<int32_t> forbidden = {157};
  std::vector<SamplingParams> kinds(4, plain());
  kinds[1].top_k = 5;
  kinds[2].top_p = 0.9f;
  kinds[3].min_p = 0.01f;
  for (SamplingParams params : kinds) {
    DrawPoint point;
    point.forbidden = forbidden;
    for (params.seed = 0; params.seed < 20; ++params.seed) {
      EXPECT_EQ(Sampler().sample(params, logits, point), 156);
    }
    std::vector<uint32_t> allowed(7, 0);
    allowed[157 / 32] = 1u << (157 % 32);
    point = DrawPoint();
    point.allowed = allowed;
    EXPECT_EQ(Sampler().sample(params, logits, point), 157);
  }
}

TEST(Sampler, LogitsThatAreNotNumbersAreAnError) {
  for (const float bad : {std::nanf(""), kInfinity}) {
    for (const size_t at : {2u, 30u, 69u}) {  // in a whole chunk and in the rest
      SamplingParams params = plain();
      std::vector<float> logits(70, 1.f);
      logits[at] = bad;
      EXPECT_THROW(Sampler().sample(params, logits, {}), Error);
      params.temperature = 0;
      EXPECT_THROW(Sampler().sample(params, logits, {}), Error);
    }
  }
  const std::vector<float> masked(5, -kInfinity);
  EXPECT_THROW(Sampler().sample(plain(), masked, {}), Error);
}

TEST(Sampler, ParametersOutOfRangeAreNamed) {
  const auto message = [](auto change) -> std::string {
    SamplingParams params;
    change(params);
    try {
      validate(params, 100);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  const auto names = [](const std::string& text, const char* name) {
    return text.find(name) != std::string::npos;
  };
  EXPECT_TRUE(names(message([](auto& p) { p.temperature = -1; }), "temperature"));
  EXPECT_TRUE(names(message([](auto& p) { p.temperature = NAN; }), "temperature"));
  EXPECT_TRUE(names(message([](auto& p) { p.top_k = -1; }), "top_k"));
  EXPECT_TRUE(names(message([](auto& p) { p.top_p = 0; }), "top_p"));
  EXPECT_TRUE(names(message([](auto& p) { p.top_p = 1.5f; }), "top_p"));
  EXPECT_TRUE(names(message([](auto& p) { p.min_p = -0.1f; }), "min_p"));
  EXPECT_TRUE(names(message([](auto& p) { p.repeat_penalty = 0; }), "repeat_penalty"));
  EXPECT_TRUE(names(message([](auto& p) { p.typical_p = 0; }), "typical_p"));
  EXPECT_TRUE(names(message([](auto& p) { p.presence_penalty = 3; }), "presence_penalty"));
  EXPECT_TRUE(names(message([](auto& p) { p.frequency_penalty = -3; }), "frequency_penalty"));
  EXPECT_TRUE(names(message([](auto& p) { p.logit_bias = {{1, 101.f}}; }), "logit_bias"));
  EXPECT_TRUE(names(message([](auto& p) { p.logit_bias = {{100, 1.f}}; }), "vocabulary"));
  EXPECT_TRUE(names(message([](auto& p) { p.repeat_last_n = -2; }), "repeat_last_n"));
}

}  // namespace
}  // namespace lowbit

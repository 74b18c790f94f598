#include "lowbit/engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "lowbit/base/check.h"
#include "support/random.h"

namespace lowbit {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

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
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < int32_t(logits.size()); ++id) ids.push_back(id);
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
  std::vector<Rule> rules(7, {"plain", plain()});
  rules[1] = {"temperature", plain()}, rules[1].params.temperature = 0.6f;
  rules[2] = {"top_k", plain()}, rules[2].params.top_k = 7;
  rules[3] = {"top_p", plain()}, rules[3].params.top_p = 0.8f;
  rules[4] = {"min_p", plain()}, rules[4].params.min_p = 0.1f;
  rules[5] = {"penalty", plain()}, rules[5].params.repeat_penalty = 1.8f;
  rules[5].params.repeat_last_n = 3;
  rules[6] = {"defaults", SamplingParams{}};
  rules[6].params.repeat_penalty = 1.1f;
  return rules;
}

const std::vector<int32_t> kHistory = {3, 11, 11, 4, 9, 4};

std::vector<float> logits_of(uint64_t seed, size_t count = 24) {
  std::vector<float> logits = test::gaussian(count, seed);
  for (float& logit : logits) logit *= 2;
  return logits;
}

// 20,000 draws at consecutive positions against the exact probabilities. The statistic exceeds
// mean + 5 standard deviations once in a million, and the seed is fixed.
TEST(Sampler, DrawsFollowTheExactDistributionOfEveryRule) {
  constexpr int kDraws = 20000;
  for (const Rule& rule : rules()) {
    const std::vector<float> logits = logits_of(5);
    const std::map<int32_t, double> expected = distribution(logits, rule.params, kHistory);
    Sampler sampler(rule.params);
    std::map<int32_t, int> counts;
    for (int i = 0; i < kDraws; ++i) {
      std::vector<float> copy = logits;
      ++counts[sampler.sample(copy, kHistory, i)];
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

// Which tokens survive, on many random rows, exactly.
TEST(Sampler, RulesKeepWhatTheirDefinitionKeeps) {
  test::Random random(8);
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SamplingParams params;
    params.top_k = static_cast<int>(random.below(20));
    params.top_p = 0.05f + 0.95f * static_cast<float>(random.uniform());
    params.min_p = 0.3f * static_cast<float>(random.uniform());
    params.repeat_penalty = 0.5f + 1.5f * static_cast<float>(random.uniform());
    params.repeat_last_n = static_cast<int>(random.below(8)) - 1;
    std::vector<float> logits = logits_of(seed);
    const std::map<int32_t, double> expected = distribution(logits, params, kHistory);

    const size_t back = params.repeat_last_n < 0
                            ? kHistory.size()
                            : std::min(kHistory.size(), size_t(params.repeat_last_n));
    apply_repeat_penalty(logits, std::span(kHistory).last(back), params.repeat_penalty);
    std::vector<Candidate> candidates;
    select_top_k(logits, params.top_k, candidates);
    apply_top_p(candidates, params.top_p);
    apply_min_p(candidates, params.min_p);
    ASSERT_EQ(candidates.size(), expected.size()) << seed;
    for (const Candidate& candidate : candidates) EXPECT_TRUE(expected.count(candidate.second));
  }
}

TEST(Sampler, GreedyTakesTheHighestAndTheLowestIdOnTies) {
  SamplingParams params;
  params.temperature = 0;
  Sampler sampler(params);
  std::vector<float> logits = {-1, 3, 2, 3, -kInfinity};
  EXPECT_EQ(sampler.sample(logits, {}, 0), 1);
  params.repeat_penalty = 2;
  const std::vector<int32_t> history = {1};
  logits = {-1, 3, 2, 3, -kInfinity};
  EXPECT_EQ(Sampler(params).sample(logits, history, 0), 3);
}

TEST(Sampler, ADrawDependsOnSeedAndPositionOnly) {
  const std::vector<float> logits = logits_of(1, 1000);
  SamplingParams params = plain();
  params.seed = 42;
  const auto draw_at = [&](Sampler& sampler, int64_t position) {
    std::vector<float> copy = logits;
    return sampler.sample(copy, {}, position);
  };
  Sampler forward(params), backward(params);
  std::vector<int32_t> a(50), b(50), other(50);
  for (int64_t i = 0; i < 50; ++i) a[i] = draw_at(forward, i);
  for (int64_t i = 49; i >= 0; --i) b[i] = draw_at(backward, i);
  EXPECT_EQ(a, b);
  params.seed = 43;
  Sampler reseeded(params);
  for (int64_t i = 0; i < 50; ++i) other[i] = draw_at(reseeded, i);
  EXPECT_NE(a, other);
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

TEST(Sampler, MaskedTokensAreNeverDrawn) {
  std::vector<float> logits(10, -kInfinity);
  logits[6] = -3;
  for (int i = 0; i < 20; ++i) {
    std::vector<float> copy = logits;
    EXPECT_EQ(Sampler(plain()).sample(copy, {}, i), 6);
  }
}

TEST(Sampler, LogitsThatAreNotNumbersAreAnError) {
  for (const float bad : {std::nanf(""), kInfinity}) {
    for (const float temperature : {0.f, 1.f}) {
      SamplingParams params = plain();
      params.temperature = temperature;
      std::vector<float> logits = {1, 2, bad, 3};
      EXPECT_THROW(Sampler(params).sample(logits, {}, 0), Error);
    }
  }
  std::vector<float> masked(5, -kInfinity);
  EXPECT_THROW(Sampler(plain()).sample(masked, {}, 0), Error);
}

TEST(Sampler, ParametersOutOfRangeAreNamed) {
  const auto message = [](auto change) -> std::string {
    SamplingParams params;
    change(params);
    try {
      Sampler sampler(params);
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
  EXPECT_TRUE(names(message([](auto& p) { p.repeat_last_n = -2; }), "repeat_last_n"));
}

}  // namespace
}  // namespace lowbit

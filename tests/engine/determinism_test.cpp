// The contract of the engine: the tokens of a request depend on the model, its prompt, its
// parameters and its seed alone.
#include <gtest/gtest.h>

#include "lowbit/base/environment.h"
#include "lowbit/engine/ngram_drafter.h"
#include "support/engine_setup.h"

namespace lowbit {
namespace {

using test::Answers;
using test::Random;

struct Case {
  Request request;
  Answers alone;
};

SamplingParams random_sampling(Random& random) {
  SamplingParams params;
  params.seed = random.next();
  params.temperature = random.below(3) == 0 ? 0.f : 0.3f + static_cast<float>(random.uniform());
  params.top_k = random.below(2) == 0 ? 0 : static_cast<int>(random.below(50));
  params.top_p = random.below(2) == 0 ? 1.f : 0.5f + 0.5f * static_cast<float>(random.uniform());
  params.min_p = random.below(2) == 0 ? 0.f : 0.1f * static_cast<float>(random.uniform());
  if (random.below(4) == 0) params.typical_p = 0.8f;
  if (random.below(3) == 0) params.repeat_penalty = 1.2f;
  if (random.below(3) == 0) params.repeat_last_n = -1;
  if (random.below(3) == 0) params.presence_penalty = 0.5f;
  if (random.below(3) == 0) params.frequency_penalty = 0.3f;
  if (random.below(4) == 0) params.logit_bias = {{20, 2.f}, {30, -100.f}, {40, -1.5f}};
  return params;
}

// Prompts share prefixes, and some say things twice, so that guesses are right now and then.
std::vector<int32_t> random_prompt(Random& random, const std::vector<std::vector<int32_t>>& texts) {
  const std::vector<int32_t>& text = texts[static_cast<size_t>(random.below(4))];
  const int64_t shared = random.below(static_cast<int64_t>(text.size()));
  std::vector<int32_t> prompt(text.begin(), text.begin() + shared);
  const std::vector<int32_t> own = test::random_ids(random, 1 + random.below(20));
  prompt.insert(prompt.end(), own.begin(), own.end());
  if (random.below(3) == 0) prompt.insert(prompt.end(), own.begin(), own.end());
  return prompt;
}

std::vector<Case> make_cases(test::TinySetup& setup, int count, DType kv_dtype) {
  Random random(2026);
  std::vector<std::vector<int32_t>> texts;
  for (int i = 0; i < 4; ++i) texts.push_back(test::random_ids(random, 150));
  std::vector<Case> cases(static_cast<size_t>(count));
  for (Case& c : cases) {
    c.request.prompt = random_prompt(random, texts);
    c.request.sampling = random_sampling(random);
    c.request.max_tokens = 1 + random.below(40);
    if (random.below(4) == 0) c.request.min_tokens = c.request.max_tokens / 2;
    if (random.below(4) == 0) c.request.stop = {"ab", "q", "!7"};
    if (random.below(4) == 0) c.request.n = static_cast<int>(2 + random.below(3));
    if (random.below(8) == 0) c.request.best_of = c.request.n + 2;
    if (random.below(2) == 0) c.request.logprobs = static_cast<int>(random.below(4));
    if (random.below(5) == 0) c.request.prompt_logprobs = static_cast<int>(random.below(3));
    if (random.below(5) == 0) c.request.cache_salt = "other";
    c.request.priority = static_cast<int>(random.below(3));
    c.alone = test::run_alone(setup, c.request, kv_dtype);
  }
  return cases;
}

bool same(const TokenLogprob& a, const TokenLogprob& b) {
  return a.id == b.id && a.rank == b.rank &&
         std::bit_cast<uint32_t>(a.logprob) == std::bit_cast<uint32_t>(b.logprob);
}

bool same(const std::vector<PositionLogprobs>& a, const std::vector<PositionLogprobs>& b) {
  const auto equal = [](const auto& x, const auto& y) { return same(x, y); };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](const PositionLogprobs& x, const PositionLogprobs& y) {
                      return same(x.token, y.token) &&
                             std::equal(x.top.begin(), x.top.end(), y.top.begin(), y.top.end(),
                                        equal);
                    });
}

void expect_same(const Answers& actual, const Answers& expected) {
  ASSERT_TRUE(actual.last);
  ASSERT_EQ(actual.choices.size(), expected.choices.size());
  for (size_t i = 0; i < expected.choices.size(); ++i) {
    EXPECT_EQ(actual.choices[i].ids, expected.choices[i].ids);
    EXPECT_EQ(actual.choices[i].text, expected.choices[i].text);
    EXPECT_EQ(actual.choices[i].reason, expected.choices[i].reason);
    EXPECT_EQ(actual.choices[i].stop_string, expected.choices[i].stop_string);
    EXPECT_TRUE(same(actual.choices[i].logprobs, expected.choices[i].logprobs));
  }
  EXPECT_TRUE(same(actual.prompt_logprobs, expected.prompt_logprobs));
  EXPECT_EQ(actual.usage.completion_tokens, expected.usage.completion_tokens);
}

EngineOptions random_options(Random& random, DType kv_dtype) {
  EngineOptions options;
  options.kv_dtype = kv_dtype;
  options.max_num_seqs = 1 + random.below(12);
  options.max_num_batched_tokens = options.max_num_seqs + random.below(60);
  options.kv_blocks = 4 + random.below(5);  // four hold the longest request
  options.prefix_cache = random.below(4) > 0;
  if (random.below(2) == 0) options.drafter = std::make_unique<NgramDrafter>(1 + random.below(5));
  return options;
}

struct Totals {
  uint64_t mixes = 0, requests = 0, cancelled = 0, preemptions = 0, hits = 0, accepted = 0;
};

// Some requests at once, in an engine of random size, some of them cancelled on the way.
void run_mix(test::TinySetup& setup, const std::vector<Case>& cases, Random& random, DType kv_dtype,
             Totals& totals) {
  Engine engine(setup.model, setup.tokenizer, random_options(random, kv_dtype));
  std::vector<std::pair<const Case*, std::unique_ptr<Answers>>> running;
  std::vector<RequestId> to_cancel;
  for (int64_t left = 3 + random.below(12); left > 0;) {
    const Case& c = cases[static_cast<size_t>(random.below(static_cast<int64_t>(cases.size())))];
    RequestId id = 0;
    auto answers = test::submit(engine, c.request, &id);
    const bool victim = random.below(4) == 0;
    if (victim) to_cancel.push_back(id);
    running.emplace_back(victim ? nullptr : &c, std::move(answers));
    --left;
    for (int64_t steps = random.below(6); steps > 0; --steps) engine.step();
    if (!to_cancel.empty() && random.below(2) == 0) {
      engine.cancel(to_cancel.back());
      to_cancel.pop_back();
    }
  }
  for (const RequestId id : to_cancel) {
    engine.step();
    engine.cancel(id);
  }
  test::finish(engine);
  for (const auto& [c, answers] : running) {
    EXPECT_TRUE(answers->last);
    if (c != nullptr) expect_same(*answers, c->alone);
    totals.cancelled += c == nullptr ? 1 : 0;
  }
  const EngineStats stats = engine.stats();
  totals.mixes += 1;
  totals.requests += running.size();
  totals.preemptions += stats.preemptions;
  totals.hits += stats.prefix_cache_hits;
  totals.accepted += stats.accepted_tokens;
}

// LOWBIT_TEST_MIXES: fewer mixes, for builds that run ten times as slow.
void run_mixes(uint64_t mixes, int distinct_requests, DType kv_dtype) {
  const std::string asked = environment_variable("LOWBIT_TEST_MIXES");
  if (!asked.empty()) mixes = std::min<uint64_t>(mixes, std::stoul(asked));
  test::TinySetup setup(256, 72), threads(256, 72, 3);
  const std::vector<Case> cases = make_cases(setup, distinct_requests, kv_dtype);
  Random random(7);
  Totals totals;
  while (totals.mixes < mixes) {
    run_mix(totals.mixes % 10 == 0 ? threads : setup, cases, random, kv_dtype, totals);
    ASSERT_FALSE(testing::Test::HasFailure()) << "mix " << totals.mixes;
  }
  // The mixes did what they are for.
  EXPECT_GT(totals.cancelled, mixes);
  EXPECT_GT(totals.preemptions, mixes * 2 / 5);
  EXPECT_GT(totals.hits, mixes * 40);
  EXPECT_GT(totals.accepted, mixes);
  testing::Test::RecordProperty("requests", static_cast<int>(totals.requests));
  testing::Test::RecordProperty("preemptions", static_cast<int>(totals.preemptions));
}

TEST(Determinism, ARequestIsAnsweredAsIfItWereAloneIn500RandomMixes) {
  run_mixes(500, 120, DType::kF32);
}

TEST(Determinism, HoldsWithKeysAndValuesOf8Bits) { run_mixes(80, 40, DType::kI8); }
TEST(Determinism, HoldsWithKeysAndValuesOf4Bits) { run_mixes(40, 20, DType::kI4); }

}  // namespace
}  // namespace lowbit

#include "lowbit/engine/drafter.h"

#include "lowbit/engine/model_drafter.h"
#include "lowbit/engine/ngram_drafter.h"
#include "support/engine_setup.h"

namespace lowbit {
namespace {

std::vector<int32_t> guess_of(Drafter& drafter, const std::vector<int32_t>& history,
                              int64_t max_tokens = 4, uint64_t sequence = 1) {
  SamplingParams sampling;
  sampling.temperature = 0;
  std::vector<DraftQuery> queries(1);
  queries[0].sequence = sequence;
  queries[0].history = history;
  queries[0].sampling = &sampling;
  queries[0].max_tokens = max_tokens;
  drafter.guess(queries);
  return queries[0].guess;
}

using Ids = std::vector<int32_t>;

TEST(NgramDrafter, GuessesWhatFollowedBefore) {
  NgramDrafter drafter(8);
  EXPECT_EQ(guess_of(drafter, {1, 2, 3, 4, 5, 6, 7, 2, 3}), (Ids{4, 5, 6, 7}));
  EXPECT_EQ(guess_of(drafter, {1, 2, 3, 4, 5, 6, 7, 2, 3, 4}), (Ids{5, 6, 7, 2}));  // grows
  EXPECT_EQ(guess_of(drafter, {1, 2, 3, 4, 5, 6, 7, 2, 3, 9}), Ids());
  EXPECT_EQ(guess_of(drafter, {5}, 4, 2), Ids());
  EXPECT_EQ(guess_of(drafter, {1, 2, 3, 2, 3}, 0, 3), Ids());
}

TEST(NgramDrafter, TheLongestGramAndThenTheLatestCounts) {
  NgramDrafter drafter(8);
  EXPECT_EQ(guess_of(drafter, {7, 8, 9, 1, 8, 9, 2, 7, 8, 9}, 1), (Ids{1}));
  EXPECT_EQ(guess_of(drafter, {8, 9, 1, 8, 9, 2, 5, 8, 9}, 1, 2), (Ids{2}));
}

TEST(NgramDrafter, ARepetitionIsGuessedToGoOn) {
  NgramDrafter drafter(8);
  EXPECT_EQ(guess_of(drafter, {4, 5, 6, 5, 6}, 5), (Ids{5, 6, 5, 6, 5}));
}

struct Result {
  std::vector<test::Answers> answers;
  EngineStats stats;
};

// Twelve requests, greedy and sampled, with or without a drafter.
Result run_twelve(test::TinySetup& setup, std::unique_ptr<Drafter> drafter) {
  EngineOptions options;
  options.kv_dtype = DType::kF32;
  options.max_num_seqs = 5;
  options.drafter = std::move(drafter);
  Engine engine(setup.model, setup.tokenizer, std::move(options));
  test::Random random(4);
  std::vector<std::unique_ptr<test::Answers>> answers;
  for (int i = 0; i < 12; ++i) {
    Request request = test::greedy(test::random_ids(random, 3 + random.below(90)), 30);
    if (i % 2 == 1) request.sampling = SamplingParams{.temperature = 1.2f, .seed = uint64_t(i)};
    answers.push_back(test::submit(engine, request));
  }
  test::finish(engine);
  Result result;
  for (const auto& answer : answers) result.answers.push_back(*answer);
  result.stats = engine.stats();
  return result;
}

void expect_same_answers(const Result& actual, const Result& expected) {
  for (size_t i = 0; i < expected.answers.size(); ++i) {
    EXPECT_EQ(actual.answers[i].choices.at(0).ids, expected.answers[i].choices.at(0).ids) << i;
  }
  EXPECT_EQ(actual.stats.generation_tokens, expected.stats.generation_tokens);
}

TEST(ModelDrafter, TheSameModelGuessesEverythingRight) {
  test::TinySetup setup(256, 48), twin(256, 20);
  const Result plain = run_twelve(setup, nullptr);
  const Result drafted =
      run_twelve(setup, std::make_unique<ModelDrafter>(twin.model, 3, 100, DType::kF32));
  expect_same_answers(drafted, plain);
  EXPECT_EQ(drafted.stats.accepted_tokens, drafted.stats.draft_tokens);
  EXPECT_GT(drafted.stats.accepted_tokens, 200u);  // 30 tokens in 8 steps
  EXPECT_LT(drafted.stats.steps, plain.stats.steps);
}

TEST(ModelDrafter, AnotherModelOrTooFewBlocksChangeNothing) {
  test::TinySetup setup(256, 48);
  const Result plain = run_twelve(setup, nullptr);
  Json config = test::tiny_goldens().model("llama").config;
  config["vocab_size"] = test::kTinyVocab;
  config["num_hidden_layers"] = 1;
  const test::TinyCheckpoint checkpoint(config);
  Model other(checkpoint, *setup.backend, {.context = 128, .max_batch = 16, .progress = false});
  for (const int64_t blocks : {3, 50}) {
    const Result drafted =
        run_twelve(setup, std::make_unique<ModelDrafter>(other, 4, blocks, DType::kF32));
    expect_same_answers(drafted, plain);
    EXPECT_GT(drafted.stats.draft_tokens, 0u);
  }
}

}  // namespace
}  // namespace lowbit

#include "lowbit/engine/generate.h"

#include <gtest/gtest.h>

#include "support/tiny_model.h"
#include "support/tiny_tokenizer.h"

namespace lowbit {
namespace {

constexpr int64_t kContext = 96;

Json model_config(std::vector<int32_t> eos = {}) {
  Json config = test::tiny_goldens().model("llama").config;
  config["eos_token_id"] = std::move(eos);
  config["vocab_size"] = 101;  // what the tokenizer has
  return config;
}

struct Session {
  explicit Session(const Json& config, int64_t max_batch = 64)
      : checkpoint(config),
        model(checkpoint, *backend,
              {.context = kContext, .max_batch = max_batch, .progress = false}),
        generator(model, tokenizer, DType::kF32) {}

  std::unique_ptr<Backend> backend = make_backend("ref", {1, Activations::kDefault});
  test::TinyCheckpoint checkpoint;
  Model model;
  Tokenizer tokenizer{test::tiny_tokenizer_spec()};
  Generator generator;
};

GenerateOptions greedy(int64_t max_tokens = 24) {
  GenerateOptions options;
  options.max_tokens = max_tokens;
  options.sampling.temperature = 0;
  return options;
}

const std::vector<int32_t> kPrompt = {10, 20, 30, 40, 50, 60, 70, 80, 90, 11};

// The whole text again for every token, and the highest logit of its last position.
std::vector<int32_t> continue_slowly(Model& model, std::vector<int32_t> ids, int64_t count) {
  const size_t begin = ids.size();
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<float> logits = test::run_chunks(model, ids, {64});
    const auto last = logits.end() - model.config().vocab_size;
    ids.push_back(static_cast<int32_t>(std::max_element(last, logits.end()) - last));
  }
  return {ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.end()};
}

TEST(Generator, GreedyEqualsRunningTheWholeTextForEveryToken) {
  Session session(model_config());
  const GenerateResult result = session.generator.generate(kPrompt, greedy());
  EXPECT_EQ(result.ids, continue_slowly(session.model, kPrompt, 24));
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.prompt_tokens, 10);
  EXPECT_EQ(result.cached_tokens, 0);
  EXPECT_EQ(result.text, session.tokenizer.decode(result.ids, true));
}

TEST(Generator, PrefillInChunksChangesNothing) {
  Session whole(model_config()), chunked(model_config(), 3);
  EXPECT_EQ(whole.generator.generate(kPrompt, greedy()).ids,
            chunked.generator.generate(kPrompt, greedy()).ids);
}

TEST(Generator, ACommonPrefixIsNotComputedAgain) {
  Session session(model_config());
  const GenerateResult first = session.generator.generate(kPrompt, greedy(8));
  std::vector<int32_t> longer = kPrompt;
  longer.insert(longer.end(), first.ids.begin(), first.ids.end());
  longer.push_back(33);
  const GenerateResult second = session.generator.generate(longer, greedy(8));
  EXPECT_EQ(second.cached_tokens, 17);  // the last token drawn has never been run
  EXPECT_EQ(second.ids, Session(model_config()).generator.generate(longer, greedy(8)).ids);

  std::vector<int32_t> other = kPrompt;
  other[4] = 99;
  const GenerateResult third = session.generator.generate(other, greedy(8));
  EXPECT_EQ(third.cached_tokens, 4);
  EXPECT_EQ(third.ids, Session(model_config()).generator.generate(other, greedy(8)).ids);

  const GenerateResult again = session.generator.generate(other, greedy(8));
  EXPECT_EQ(again.cached_tokens, 9);  // all but the last, whose logits are needed
  EXPECT_EQ(again.ids, third.ids);
}

TEST(Generator, AnEndTokenStops) {
  Session endless(model_config());
  const std::vector<int32_t> ids = endless.generator.generate(kPrompt, greedy()).ids;
  const auto end = std::find(ids.begin() + 3, ids.end(), ids[3]);
  Session session(model_config({100, *end}));
  const auto first = std::find(ids.begin(), ids.end(), *end);
  const std::vector<int32_t> expected(ids.begin(), first + 1);

  GenerateOptions options = greedy();
  const GenerateResult result = session.generator.generate(kPrompt, options);
  EXPECT_EQ(result.ids, expected);
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  const std::vector<int32_t> shown(expected.begin(), expected.end() - 1);
  EXPECT_EQ(result.text, session.tokenizer.decode(shown, true));

  options.ignore_eos = true;
  EXPECT_EQ(session.generator.generate(kPrompt, options).ids, ids);
}

TEST(Generator, AStopStringOverSeveralTokensStopsAndIsNotShown) {
  Session session(model_config());
  const std::string text = session.generator.generate(kPrompt, greedy(40)).text;
  ASSERT_GT(text.size(), 12u);
  GenerateOptions options = greedy(40);
  options.stop = {"never", text.substr(6, 4)};
  std::string streamed;
  const GenerateResult result =
      session.generator.generate(kPrompt, options, [&](const std::string& piece) {
        streamed += piece;
        return true;
      });
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_EQ(result.text, text.substr(0, text.find(options.stop[1])));
  EXPECT_EQ(streamed, result.text);

  options.stop = {text.substr(text.size() - 2) + "#"};  // begins, but is never complete
  EXPECT_EQ(session.generator.generate(kPrompt, options).text, text);
}

TEST(Generator, TheCallerCanCancel) {
  Session session(model_config(), 4);
  int pieces = 0;
  const GenerateResult while_decoding = session.generator.generate(
      kPrompt, greedy(40), [&](const std::string&) { return ++pieces < 3; });
  EXPECT_EQ(while_decoding.finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(pieces, 3);

  GenerateOptions options = greedy();
  int steps = 0;
  options.cancelled = [&] { return ++steps == 2; };
  const std::vector<int32_t> other(kPrompt.rbegin(), kPrompt.rend());
  const GenerateResult while_filling = session.generator.generate(other, options);
  EXPECT_EQ(while_filling.finish_reason, FinishReason::kCancelled);
  EXPECT_TRUE(while_filling.ids.empty());

  // What was computed before stays good.
  options.cancelled = {};
  const GenerateResult resumed = session.generator.generate(other, options);
  EXPECT_EQ(resumed.cached_tokens, 4);
  EXPECT_EQ(resumed.ids, Session(model_config()).generator.generate(other, options).ids);
}

TEST(Generator, AFullContextEndsTheAnswer) {
  Session session(model_config());
  const GenerateResult result = session.generator.generate(kPrompt, greedy(-1));
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.ids.size() + kPrompt.size(), static_cast<size_t>(kContext));
  EXPECT_TRUE(session.generator.generate(kPrompt, greedy(0)).ids.empty());
}

TEST(Generator, SeedsRepeatAndDiffer) {
  GenerateOptions options = greedy(30);
  options.sampling.temperature = 2;
  options.sampling.seed = 7;
  Session session(model_config());
  const std::vector<int32_t> ids = session.generator.generate(kPrompt, options).ids;
  EXPECT_EQ(ids, Session(model_config(), 3).generator.generate(kPrompt, options).ids);
  options.sampling.seed = 8;
  EXPECT_NE(ids, session.generator.generate(kPrompt, options).ids);
}

TEST(Generator, RefusesWhatCannotBeAnswered) {
  Session session(model_config());
  EXPECT_THROW(session.generator.generate({}, greedy()), Error);
  EXPECT_THROW(session.generator.generate(std::vector<int32_t>(kContext, 5), greedy()), Error);
  EXPECT_THROW(session.generator.generate({101}, greedy()), Error);
  EXPECT_THROW(session.generator.generate(kPrompt, greedy(-2)), Error);
  GenerateOptions options = greedy();
  options.stop = {""};
  EXPECT_THROW(session.generator.generate(kPrompt, options), Error);
  options = greedy();
  options.sampling.top_p = 2;
  EXPECT_THROW(session.generator.generate(kPrompt, options), Error);
  EXPECT_EQ(session.generator.generate(kPrompt, greedy()).ids.size(), 24u);  // still usable
}

}  // namespace
}  // namespace lowbit

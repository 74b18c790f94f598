#include "lowbit/engine/engine.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <thread>

#include "support/engine_setup.h"

namespace lowbit {
namespace {

using test::Answers;
using test::finish;
using test::greedy;
using test::submit;

EngineOptions f32_options(int64_t max_num_seqs = 64, int64_t kv_blocks = 0) {
  EngineOptions options;
  options.kv_dtype = DType::kF32;
  options.max_num_seqs = max_num_seqs;
  options.kv_blocks = kv_blocks;
  return options;
}

std::vector<int32_t> prompt_of(int64_t count, uint64_t seed = 1) {
  test::Random random(seed);
  return test::random_ids(random, count);
}

// Highest logit of the last position of the whole text, again for every token.
std::vector<int32_t> continue_slowly(Model& model, std::vector<int32_t> ids, int64_t count) {
  const size_t begin = ids.size();
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<float> logits = test::run_chunks(model, ids, {model.max_batch()});
    const auto last = logits.end() - test::kTinyVocab;
    ids.push_back(static_cast<int32_t>(std::max_element(last, logits.end()) - last));
  }
  return {ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.end()};
}

double logprob_of(const std::vector<float>& logits, size_t row, int32_t id) {
  const float* values = logits.data() + row * test::kTinyVocab;
  double sum = 0;
  for (int i = 0; i < test::kTinyVocab; ++i) sum += std::exp(static_cast<double>(values[i]));
  return values[id] - std::log(sum);
}

TEST(Engine, HeldRequestsWaitAndThenGoOnAsIfNothingHadHappened) {
  test::TinySetup setup(160, 32);
  const Answers alone = test::run_alone(setup, greedy(prompt_of(70), 40));
  // Room for one request alone: the other takes the blocks of the one that is held.
  Engine engine(setup.model, setup.tokenizer, f32_options(1, 3));
  RequestId id = 0;
  const auto held = submit(engine, greedy(prompt_of(70), 40), &id);
  for (int i = 0; i < 20; ++i) engine.step();
  engine.hold(id, true);
  engine.step();
  const int outputs = held->outputs;
  EXPECT_GT(outputs, 0);
  EXPECT_EQ(engine.stats().kv_blocks_held, 0);
  const auto other = submit(engine, greedy(prompt_of(90, 7), 30));
  while (engine.step()) {
  }
  EXPECT_TRUE(other->last);
  EXPECT_EQ(held->outputs, outputs) << "it makes no tokens meanwhile";
  EXPECT_EQ(engine.stats().waiting, 1);
  engine.hold(id, false);
  engine.hold(12345, true);  // of nobody
  finish(engine);
  ASSERT_TRUE(held->last);
  EXPECT_EQ(held->choices[0].ids, alone.choices[0].ids);
}

TEST(Engine, HeldRequestsCanBeCancelled) {
  test::TinySetup setup(160, 32);
  Engine engine(setup.model, setup.tokenizer, f32_options());
  RequestId id = 0;
  const auto held = submit(engine, greedy(prompt_of(20), 40), &id);
  engine.hold(id, true);  // before it has started
  while (engine.step()) {
  }
  EXPECT_EQ(held->outputs, 0);
  engine.cancel(id);
  finish(engine);
  EXPECT_EQ(held->choices[0].reason, FinishReason::kCancelled);
}

TEST(Engine, ManyRequestsAtOnceEqualTheSlowDefinition) {
  test::TinySetup setup(160, 32);
  Engine engine(setup.model, setup.tokenizer, f32_options(4));
  std::vector<std::unique_ptr<Answers>> answers;
  for (int i = 0; i < 9; ++i) {
    answers.push_back(submit(engine, greedy(prompt_of(5 + 11 * i, 100 + i), 12)));
  }
  finish(engine);
  for (int i = 0; i < 9; ++i) {
    const std::vector<int32_t> prompt = prompt_of(5 + 11 * i, 100 + i);
    ASSERT_EQ(answers[i]->choices.size(), 1u);
    EXPECT_EQ(answers[i]->choices[0].ids, continue_slowly(setup.model, prompt, 12)) << i;
    EXPECT_EQ(answers[i]->choices[0].reason, FinishReason::kLength);
    EXPECT_EQ(answers[i]->usage.completion_tokens, 12);
  }
  EXPECT_EQ(engine.stats().generation_tokens, 9u * 12);
  EXPECT_EQ(engine.stats().time_to_first_token_seconds.count, 9u);
  EXPECT_EQ(engine.stats().inter_token_latency_seconds.count, 9u * 11);
}

TEST(Engine, OnePromptChunkAndManyDecodesShareAStep) {
  test::TinySetup setup(256, 16);
  Engine engine(setup.model, setup.tokenizer, f32_options(8));
  const auto first = submit(engine, greedy(prompt_of(4), 100));
  engine.step();
  const auto second = submit(engine, greedy(prompt_of(60, 2), 5));
  const int before = first->outputs;
  for (int i = 0; i < 4; ++i) engine.step();  // 15 tokens of the prompt in each
  EXPECT_EQ(first->outputs, before + 4);      // not held up
  EXPECT_EQ(second->outputs, 1);
  finish(engine);
}

TEST(Engine, LogprobsAreThoseOfTheModel) {
  test::TinySetup setup;
  Engine engine(setup.model, setup.tokenizer, f32_options());
  Request request = greedy(prompt_of(70), 6);
  request.logprobs = 3;
  request.prompt_logprobs = 2;
  const auto answers = submit(engine, request);
  finish(engine);
  std::vector<int32_t> ids = request.prompt;
  const test::Collected& choice = answers->choices.at(0);
  ids.insert(ids.end(), choice.ids.begin(), choice.ids.end());
  const std::vector<float> logits = test::run_chunks(setup.model, ids, {64});

  ASSERT_EQ(answers->prompt_logprobs.size(), 70u);
  EXPECT_EQ(answers->prompt_logprobs[0].token.rank, 0);
  for (size_t i = 1; i < ids.size(); ++i) {
    const PositionLogprobs& at = i < 70 ? answers->prompt_logprobs[i] : choice.logprobs.at(i - 70);
    ASSERT_EQ(at.token.id, ids[i]);
    EXPECT_NEAR(at.token.logprob, logprob_of(logits, i - 1, ids[i]), 2e-5);
    ASSERT_EQ(at.top.size(), i < 70 ? 2u : 3u);
    for (const TokenLogprob& top : at.top) {
      EXPECT_NEAR(top.logprob, logprob_of(logits, i - 1, top.id), 2e-5);
    }
    int64_t above = 0;
    for (int32_t id = 0; id < test::kTinyVocab; ++id) {
      above += logits[(i - 1) * test::kTinyVocab + id] > logits[(i - 1) * test::kTinyVocab + ids[i]]
                   ? 1
                   : 0;
    }
    EXPECT_EQ(at.token.rank, above + 1);
  }
}

TEST(Engine, APromptCanBeScoredWithoutAnAnswer) {
  test::TinySetup setup(64);
  Engine engine(setup.model, setup.tokenizer, f32_options());
  for (const int64_t size : {1, 64}) {  // all of the context
    Request request = greedy(prompt_of(size), 0);
    request.prompt_logprobs = 0;
    const auto answers = submit(engine, request);
    finish(engine);
    EXPECT_EQ(answers->prompt_logprobs.size(), static_cast<size_t>(size));
    EXPECT_TRUE(answers->choices.at(0).ids.empty());
    EXPECT_EQ(answers->choices[0].reason, FinishReason::kLength);
  }
}

TEST(Engine, APrefixIsFoundAgainByTheTokenAndOnlyUnderItsSalt) {
  test::TinySetup setup;
  Engine engine(setup.model, setup.tokenizer, f32_options());
  const std::vector<int32_t> prompt = prompt_of(150);
  const auto ask = [&](std::vector<int32_t> ids, const std::string& salt) {
    Request request = greedy(std::move(ids), 4);
    request.cache_salt = salt;
    const auto answers = submit(engine, request);
    finish(engine);
    return *answers;
  };
  EXPECT_EQ(ask(prompt, "a").usage.cached_tokens, 0);
  EXPECT_EQ(ask(prompt, "a").usage.cached_tokens, 149);
  EXPECT_EQ(ask(prompt, "b").usage.cached_tokens, 0);
  std::vector<int32_t> other = prompt;
  other[100] = other[100] == 50 ? 51 : 50;
  const Answers diverged = ask(other, "a");
  EXPECT_EQ(diverged.usage.cached_tokens, 100);
  EXPECT_EQ(diverged.choices[0].ids, continue_slowly(setup.model, other, 4));
  EXPECT_EQ(ask(prompt, "a").choices[0].ids, continue_slowly(setup.model, prompt, 4));
}

TEST(Engine, ChoicesShareTheBlocksOfThePrompt) {
  test::TinySetup setup(512);
  EngineOptions options = f32_options(8);
  options.prefix_cache = false;  // across requests
  Engine engine(setup.model, setup.tokenizer, std::move(options));
  Request request = greedy(prompt_of(200), 20);
  request.sampling = {.temperature = 5, .top_k = 0, .top_p = 1, .min_p = 0};
  request.n = 5;
  const auto answers = submit(engine, request);
  int64_t most = 0;
  while (engine.step()) most = std::max(most, engine.stats().kv_blocks_held);
  EXPECT_EQ(most, 3 + 5);  // three full ones, and the rest for each
  EXPECT_EQ(engine.stats().kv_blocks_held, 0);
  std::set<std::vector<int32_t>> different;
  for (const test::Collected& choice : answers->choices) different.insert(choice.ids);
  EXPECT_EQ(different.size(), 5u);
  EXPECT_EQ(answers->usage.completion_tokens, 100);

  request.n = 1;  // the first choice is what one alone is
  EXPECT_EQ(answers->choices[0].ids, test::run_alone(setup, request).choices[0].ids);
}

TEST(Engine, BestOfReturnsTheLikeliest) {
  test::TinySetup setup;
  Engine engine(setup.model, setup.tokenizer, f32_options());
  Request request = greedy(prompt_of(20), 10);
  request.sampling.temperature = 2;
  request.n = 6;
  request.logprobs = 0;
  const auto all = submit(engine, request);
  finish(engine);
  std::vector<std::pair<double, std::vector<int32_t>>> scored;
  for (const test::Collected& choice : all->choices) {
    double sum = 0;
    for (const PositionLogprobs& at : choice.logprobs) sum -= at.token.logprob;
    scored.emplace_back(sum / static_cast<double>(choice.ids.size()), choice.ids);
  }
  std::sort(scored.begin(), scored.end());
  request.n = 2;
  request.best_of = 6;
  const auto best = submit(engine, request);
  finish(engine);
  ASSERT_EQ(best->choices.size(), 2u);
  EXPECT_EQ(best->outputs, 2);
  EXPECT_EQ(best->choices[0].ids, scored[0].second);
  EXPECT_EQ(best->choices[1].ids, scored[1].second);
  EXPECT_EQ(best->usage.completion_tokens, 60);
}

TEST(Engine, PreemptionGoesOnWhereItStopped) {
  test::TinySetup setup(256, 64);
  Engine engine(setup.model, setup.tokenizer, f32_options(16, 5));
  std::vector<std::unique_ptr<Answers>> answers;
  for (int i = 0; i < 6; ++i) answers.push_back(submit(engine, greedy(prompt_of(50, i), 150)));
  finish(engine);
  EXPECT_GT(engine.stats().preemptions, 0u);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(answers[i]->choices.at(0).ids,
              test::run_alone(setup, greedy(prompt_of(50, i), 150)).choices[0].ids);
  }
}

TEST(Engine, WhoIsUrgentGoesFirst) {
  test::TinySetup setup;
  Engine engine(setup.model, setup.tokenizer, f32_options(1));
  std::vector<int> order;
  const auto ask = [&](int priority) {
    Request request = greedy(prompt_of(10), 3);
    request.priority = priority;
    request.on_output = [&order, priority](Output&& output) {
      if (output.last) order.push_back(priority);
    };
    engine.submit(std::move(request));
  };
  for (const int priority : {5, 3, 9, -1}) ask(priority);
  finish(engine);
  EXPECT_EQ(order, (std::vector<int>{-1, 3, 5, 9}));
}

TEST(Engine, ARequestCanBeCancelledInEveryState) {
  test::TinySetup setup(256, 16);
  for (int steps = 0; steps < 14; ++steps) {  // waiting, in the prompt, siblings waiting, decoding
    Engine engine(setup.model, setup.tokenizer, f32_options(2));
    Request request = greedy(prompt_of(60), 8);
    request.n = 3;
    RequestId id = 0;
    const auto victim = submit(engine, request, &id);
    const auto other = submit(engine, greedy(prompt_of(9, 2), 30));
    for (int i = 0; i < steps; ++i) engine.step();
    engine.cancel(id);
    engine.step();
    EXPECT_TRUE(victim->last) << steps;  // within one step
    for (const test::Collected& choice : victim->choices) {
      EXPECT_TRUE(choice.reason == FinishReason::kCancelled ||
                  choice.reason == FinishReason::kLength);
    }
    engine.cancel(id);
    engine.cancel(12345);
    finish(engine);
    EXPECT_EQ(other->choices.at(0).ids,
              test::run_alone(setup, greedy(prompt_of(9, 2), 30)).choices[0].ids);
  }
}

TEST(Engine, ACallbackMayCancelAndSubmit) {
  test::TinySetup setup;
  Engine engine(setup.model, setup.tokenizer, f32_options());
  Answers second;
  int outputs = 0;
  std::optional<FinishReason> reason;
  Request request = greedy(prompt_of(5), 50);
  request.on_output = [&](Output&& output) {
    reason = output.finish_reason;
    if (++outputs != 3) return;
    engine.cancel(output.request);
    Request next = greedy(prompt_of(6), 4);
    next.on_output = second.collector();
    engine.submit(std::move(next));
  };
  engine.submit(std::move(request));
  finish(engine);
  EXPECT_EQ(outputs, 4);
  EXPECT_EQ(reason, FinishReason::kCancelled);
  EXPECT_TRUE(second.last);

  request = greedy(prompt_of(5), 50);
  request.on_output = [](Output&&) { throw std::runtime_error("no"); };
  engine.submit(std::move(request));
  finish(engine);
}

TEST(Engine, StopsAreFoundAcrossTokensAndShownOnRequest) {
  test::TinySetup setup;
  Engine engine(setup.model, setup.tokenizer, f32_options());
  const auto ask = [&](const Request& request) {
    const auto answers = submit(engine, request);
    finish(engine);
    return answers->choices.at(0);
  };
  Request request = greedy(prompt_of(10), 40);
  const std::string text = ask(request).text;
  ASSERT_GT(text.size(), 20u);
  const std::string stop = text.substr(8, 4);
  const size_t at = text.find(stop);
  request.stop = {"never", stop};
  test::Collected stopped = ask(request);
  EXPECT_EQ(stopped.text, text.substr(0, at));
  EXPECT_EQ(stopped.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.stop_string, stop);
  EXPECT_LT(stopped.ids.size(), 40u);

  request.include_stop_str_in_output = true;
  EXPECT_EQ(ask(request).text, text.substr(0, at) + stop);

  request.min_tokens = 40;
  EXPECT_EQ(ask(request).text, text);
}

TEST(Engine, EndTokensWaitForMinTokens) {
  test::TinySetup plain;
  const Request request = greedy(prompt_of(10), 30);
  const std::vector<int32_t> ids = test::run_alone(plain, request).choices[0].ids;
  const int32_t end = ids[4];

  test::TinySetup setup(256, 64, 1, {end});
  const test::Collected stopped = test::run_alone(setup, request).choices[0];
  EXPECT_EQ(stopped.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.stop_token, end);
  EXPECT_EQ(stopped.ids.back(), end);

  Request stop_token = request;
  stop_token.stop_token_ids = {end};
  EXPECT_EQ(test::run_alone(plain, stop_token).choices[0].ids, stopped.ids);
  stop_token.ignore_eos = true;
  EXPECT_EQ(test::run_alone(setup, stop_token).choices[0].ids, stopped.ids);

  Request patient = request;
  patient.min_tokens = 20;
  const test::Collected late = test::run_alone(setup, patient).choices[0];
  EXPECT_GE(late.ids.size(), 20u);
  EXPECT_EQ(std::count(late.ids.begin(), late.ids.begin() + 20, end), 0);

  Request ignoring = request;
  ignoring.ignore_eos = true;
  EXPECT_EQ(test::run_alone(setup, ignoring).choices[0].ids, ids);
}

TEST(Engine, ABannedTokenIsNeverDrawn) {
  test::TinySetup setup;
  Request request = greedy(prompt_of(10), 30);
  for (int i = 0; i < 5; ++i) {
    const std::vector<int32_t> ids = test::run_alone(setup, request).choices[0].ids;
    for (const auto& [banned, bias] : request.sampling.logit_bias) {
      EXPECT_EQ(std::count(ids.begin(), ids.end(), banned), 0);
    }
    request.sampling.logit_bias.emplace_back(ids[static_cast<size_t>(i)], -100.f);
  }
  request.sampling.logit_bias = {{33, 100.f}};
  EXPECT_EQ(test::run_alone(setup, request).choices[0].ids, std::vector<int32_t>(30, 33));
}

// Allows one text, then nothing.
class OneText : public TokenConstraint {
 public:
  explicit OneText(std::vector<int32_t> ids) : ids_(std::move(ids)) {}
  std::unique_ptr<TokenConstraint> clone() const override {
    return std::make_unique<OneText>(*this);
  }
  void allowed(std::span<uint32_t> mask) override {
    std::fill(mask.begin(), mask.end(), 0);
    const auto id = static_cast<size_t>(ids_[next_]);
    mask[id / 32] |= 1u << (id % 32);
  }
  void accept(int32_t id) override { EXPECT_EQ(id, ids_[next_++]); }
  bool finished() const override { return next_ == ids_.size(); }

 private:
  std::vector<int32_t> ids_;
  size_t next_ = 0;
};

TEST(Engine, AConstraintHasTheLastWord) {
  test::TinySetup setup(256, 64, 2, {77});
  Engine engine(setup.model, setup.tokenizer, f32_options());
  Request request = greedy(prompt_of(10), 30);
  request.constraint = std::make_shared<OneText>(std::vector<int32_t>{9, 8, 7, 60, 8});
  request.n = 2;
  request.min_tokens = 12;  // more than the grammar has
  const auto answers = submit(engine, request);
  finish(engine);
  for (const test::Collected& choice : answers->choices) {
    EXPECT_EQ(choice.ids, (std::vector<int32_t>{9, 8, 7, 60, 8}));
    EXPECT_EQ(choice.reason, FinishReason::kStop);
  }
  request.sampling.logit_bias = {{7, -100.f}};  // now nothing is left at the third token
  const auto failed = submit(engine, request);
  const auto other = submit(engine, greedy(prompt_of(10), 3));
  finish(engine);
  EXPECT_EQ(failed->choices.at(0).reason, FinishReason::kError);
  EXPECT_NE(failed->choices[0].error.find("finite"), std::string::npos);
  EXPECT_EQ(other->choices.at(0).reason, FinishReason::kLength);
  EXPECT_TRUE(engine.stats().healthy);
}

TEST(Engine, RefusesWhatCanNeverBeAnswered) {
  test::TinySetup setup(256);
  Engine engine(setup.model, setup.tokenizer, f32_options(4, 2));
  EXPECT_EQ(engine.max_request_tokens(), 128);
  const auto message = [&](auto change) -> std::string {
    Request request = greedy(prompt_of(10), 5);
    change(request);
    try {
      engine.submit(request);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      return error.what();
    }
    return "accepted";
  };
  const auto expect = [&](const char* part, auto change) {
    EXPECT_NE(message(change).find(part), std::string::npos) << message(change);
  };
  expect("empty", [](Request& r) { r.prompt.clear(); });
  expect("128", [](Request& r) { r.prompt.resize(128, 5); });
  expect("vocabulary", [](Request& r) { r.prompt[3] = test::kTinyVocab; });
  expect("vocabulary", [](Request& r) { r.prompt[3] = -1; });
  expect("temperature", [](Request& r) { r.sampling.temperature = -1; });
  expect("presence_penalty", [](Request& r) { r.sampling.presence_penalty = NAN; });
  expect("logit_bias", [](Request& r) { r.sampling.logit_bias = {{-5, 1.f}}; });
  expect("max_tokens", [](Request& r) { r.max_tokens = -2; });
  expect("min_tokens", [](Request& r) { r.min_tokens = 6; });
  expect("stop string", [](Request& r) { r.stop = {""}; });
  expect("stop has", [](Request& r) { r.stop.assign(1000, "x"); });
  expect("stop_token_ids", [](Request& r) { r.stop_token_ids = {test::kTinyVocab}; });
  expect("n must", [](Request& r) { r.n = 0; });
  expect("n must", [](Request& r) { r.n = 1 << 30; });
  expect("best_of", [](Request& r) { r.n = 3, r.best_of = 2; });
  expect("logprobs", [](Request& r) { r.logprobs = 100000; });
  expect("prompt_logprobs", [](Request& r) { r.prompt_logprobs = -2; });
  EXPECT_FALSE(engine.step());
  EXPECT_THROW(Engine(setup.model, setup.tokenizer, f32_options(0)), Error);
}

TEST(Engine, AFullQueueRefusesAndRecovers) {
  test::TinySetup setup;
  EngineOptions options = f32_options(1);
  options.max_waiting = 3;
  options.max_waiting_tokens = 50;
  Engine engine(setup.model, setup.tokenizer, std::move(options));
  const auto ask = [&](int64_t size) {
    return engine.submit(greedy(prompt_of(size), 4)).admission;
  };
  EXPECT_EQ(ask(20), Admission::kAccepted);
  EXPECT_EQ(ask(20), Admission::kAccepted);
  EXPECT_EQ(ask(20), Admission::kQueueFull);  // by tokens
  EXPECT_FALSE(engine.queue_full()) << "a short one still fits";
  EXPECT_EQ(ask(5), Admission::kAccepted);
  EXPECT_TRUE(engine.queue_full());
  EXPECT_EQ(ask(1), Admission::kQueueFull);  // by requests
  EXPECT_EQ(engine.stats().waiting, 3);
  engine.step();  // one starts
  EXPECT_EQ(ask(1), Admission::kAccepted);
  finish(engine);
  EXPECT_EQ(ask(200), Admission::kAccepted);  // a single one may be longer than the queue
  finish(engine);
  EXPECT_EQ(engine.stats().requests, 5u);
}

TEST(Engine, DrainFinishesAndStopCancels) {
  test::TinySetup setup;
  for (const bool drain : {true, false}) {
    Engine engine(setup.model, setup.tokenizer, f32_options());
    const auto first = submit(engine, greedy(prompt_of(10), 30));
    for (int i = 0; i < 3; ++i) engine.step();
    const auto second = submit(engine, greedy(prompt_of(10), 30));
    drain ? engine.drain() : engine.stop();
    EXPECT_EQ(engine.submit(greedy(prompt_of(3), 3)).admission, Admission::kStopping);
    engine.run();  // returns
    for (const auto* answers : {first.get(), second.get()}) {
      EXPECT_TRUE(answers->last);
      EXPECT_EQ(answers->choices.at(0).reason,
                drain ? FinishReason::kLength : FinishReason::kCancelled);
    }
    EXPECT_EQ(engine.stats().kv_blocks_held, 0);
  }
}

TEST(Engine, DamagedWeightsEndARequestAndNotTheEngine) {
  test::TinySetup setup;
  test::TinyCheckpoint damaged(test::TinySetup::config({}));
  LinearWeight& linear = damaged.linear("model.embed_tokens");
  std::vector<float> values(static_cast<size_t>(linear.weight.rows * linear.weight.cols), 0.1f);
  values[50 * static_cast<size_t>(linear.weight.cols)] = NAN;  // token 50 poisons who reads it
  linear.weight = dense_f32(values, linear.weight.rows, linear.weight.cols);
  Model model(damaged, *setup.backend, {.context = 64, .progress = false});
  Engine engine(model, setup.tokenizer, f32_options());
  const auto answers = submit(engine, greedy({5, 6, 7}, 5));
  finish(engine);
  EXPECT_EQ(answers->choices.at(0).reason, FinishReason::kError);
  EXPECT_NE(answers->choices[0].error.find("nan"), std::string::npos);
  EXPECT_TRUE(engine.stats().healthy);
}

TEST(Engine, ClientsOnManyThreadsAreAnswered) {
  test::TinySetup setup(256, 32, 2);
  Engine engine(setup.model, setup.tokenizer, f32_options(6, 16));
  const auto expected = test::run_alone(setup, greedy(prompt_of(20), 12)).choices[0].ids;
  std::thread runner([&] { engine.run(); });
  std::atomic<int> wrong{0}, done{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < 25; ++i) {
        const bool cancels = (i + c) % 3 == 0;
        const auto ids = std::make_shared<std::vector<int32_t>>();
        Request request = greedy(prompt_of(20), 12);
        request.on_output = [&, ids, cancels](Output&& output) {
          ids->insert(ids->end(), output.ids.begin(), output.ids.end());
          if (!output.last) return;
          if (!cancels && *ids != expected) ++wrong;
          ++done;
        };
        const Submission submission = engine.submit(std::move(request));
        if (submission.admission != Admission::kAccepted) ++wrong;
        if (cancels) engine.cancel(submission.id);
        if (engine.stats().kv_usage() > 1) ++wrong;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  engine.drain();
  runner.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(done, 100);
  EXPECT_EQ(engine.stats().kv_blocks_held, 0);
}

}  // namespace
}  // namespace lowbit

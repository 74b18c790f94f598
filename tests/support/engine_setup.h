// A tiny model with a tokenizer, and engines on it whose outputs are collected.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/engine/engine.h"
#include "support/tiny_model.h"
#include "support/tiny_tokenizer.h"

namespace lowbit::test {

constexpr int32_t kTinyVocab = 101;  // what the tiny tokenizer has

struct TinySetup {
  explicit TinySetup(int64_t context = 256, int64_t max_batch = 64, int threads = 1,
                     std::vector<int32_t> eos = {}, const std::string& backend_name = "cpu")
      : backend(make_backend(backend_name, {threads, Activations::kDefault})),
        checkpoint(config(std::move(eos))),
        model(checkpoint, *backend,
              {.context = context, .max_batch = max_batch, .progress = false}) {}

  static Json config(std::vector<int32_t> eos) {
    Json config = tiny_goldens().model("llama_gqa_tied").config;
    config["eos_token_id"] = std::move(eos);
    config["vocab_size"] = kTinyVocab;
    return config;
  }

  std::unique_ptr<Backend> backend;
  TinyCheckpoint checkpoint;
  Model model;
  Tokenizer tokenizer{tiny_tokenizer_spec()};
};

// What came of one choice.
struct Collected {
  std::string text;
  std::vector<int32_t> ids;
  std::vector<PositionLogprobs> logprobs;
  std::optional<FinishReason> reason;
  std::string stop_string, error;
  int32_t stop_token = -1;
};

// What came of one request.
struct Answers {
  std::vector<Collected> choices;
  std::vector<PositionLogprobs> prompt_logprobs;
  Usage usage;
  int outputs = 0;
  bool last = false;

  OutputCallback collector() {
    return [this](Output&& output) {
      EXPECT_FALSE(last) << "an output after the last";
      ++outputs;
      if (choices.size() <= static_cast<size_t>(output.index)) choices.resize(output.index + 1);
      Collected& choice = choices[output.index];
      EXPECT_FALSE(choice.reason.has_value()) << "an output after the end of the choice";
      choice.text += output.text;
      choice.ids.insert(choice.ids.end(), output.ids.begin(), output.ids.end());
      choice.logprobs.insert(choice.logprobs.end(), output.logprobs.begin(), output.logprobs.end());
      choice.reason = output.finish_reason;
      choice.stop_string = output.stop_string;
      choice.stop_token = output.stop_token;
      choice.error = output.error;
      if (!output.prompt_logprobs.empty()) prompt_logprobs = output.prompt_logprobs;
      usage = output.usage;
      last = output.last;
    };
  }
};

// Steps until there is nothing to do; no block may then be held.
inline void finish(Engine& engine) {
  while (engine.step()) {
  }
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.kv_blocks_held, 0) << "blocks leak";
}

inline std::unique_ptr<Answers> submit(Engine& engine, Request request, RequestId* id = nullptr) {
  auto answers = std::make_unique<Answers>();
  request.on_output = answers->collector();
  const Submission submission = engine.submit(std::move(request));
  EXPECT_EQ(submission.admission, Admission::kAccepted);
  if (id != nullptr) *id = submission.id;
  return answers;
}

// The request alone in an engine of its own.
inline Answers run_alone(TinySetup& setup, const Request& request, DType kv_dtype = DType::kF32) {
  EngineOptions options;
  options.kv_dtype = kv_dtype;
  Engine engine(setup.model, setup.tokenizer, std::move(options));
  const auto answers = submit(engine, request);
  finish(engine);
  EXPECT_TRUE(answers->last);
  return *answers;
}

inline std::vector<int32_t> random_ids(Random& random, int64_t count) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(3 + random.below(kTinyVocab - 3)));
  }
  return ids;
}

inline Request greedy(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

}  // namespace lowbit::test

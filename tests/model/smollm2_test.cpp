// The real model against transformers in fp32 (tools/golden/smollm2.py).
#include <gtest/gtest.h>

#include <algorithm>

#include "lowbit/base/file.h"
#include "lowbit/engine/generate.h"
#include "lowbit/eval/perplexity.h"
#include "support/backends.h"
#include "support/paths.h"

namespace lowbit {
namespace {

const Json& smollm2_golden() {
  static const Json golden = read_json(test::golden("smollm2.json"));
  return golden;
}

struct Loaded {
  Loaded(const std::string& path, const std::string& backend_name, Activations activations)
      : checkpoint(open_checkpoint(path)),
        backend(make_backend(backend_name, {0, activations})),
        model(*checkpoint, *backend, {.context = 2048, .progress = false}),
        tokenizer(checkpoint->tokenizer()) {}

  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Backend> backend;
  Model model;
  Tokenizer tokenizer;
};

// Runs prompt and golden continuation in one pass: the highest logit at each position must be the
// next golden token, which is what drawing them one by one comes to.
void expect_golden(Model& model, const Json& golden) {
  const auto prompt = golden["prompt_ids"].get<std::vector<int32_t>>();
  const auto expected = golden["ids"].get<std::vector<int32_t>>();
  StepBatch batch;
  batch.tokens = prompt;
  batch.tokens.insert(batch.tokens.end(), expected.begin(), expected.end() - 1);
  batch.sequences = {{0, batch.size(), 0, {0, 1, 2, 3}}};
  for (size_t i = 0; i < expected.size(); ++i) {
    batch.logit_rows.push_back(static_cast<int32_t>(prompt.size() - 1 + i));
  }
  KvCache cache = model.make_kv_cache(4, DType::kF32);
  const Tensor logits = model.forward(batch, cache);
  const std::vector<float> values = test::values_of(model.backend(), logits);
  std::vector<int32_t> highest;
  for (int64_t row = 0; row < logits.rows; ++row) {
    const float* begin = values.data() + row * logits.cols;
    highest.push_back(static_cast<int32_t>(std::max_element(begin, begin + logits.cols) - begin));
  }
  EXPECT_EQ(highest, expected) << golden["prompt"] << ", smallest margin " << golden["margin"];
}

class SmolLm2 : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Backends, SmolLm2, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

TEST_P(SmolLm2, ContinuesAsTransformersTokenForToken) {
  const std::string path = test::smollm2();
  LOWBIT_SKIP_WITHOUT(path, "SmolLM2-135M-Instruct.Q4_1.gguf");
  LOWBIT_SKIP_WITHOUT_BACKEND(GetParam());
  Loaded loaded(path, GetParam(), Activations::kF32);
  for (const Json& golden : smollm2_golden()["prompts"]) {
    EXPECT_EQ(loaded.tokenizer.encode(golden["prompt"].get<std::string>()),
              golden["prompt_ids"].get<std::vector<int32_t>>());
    expect_golden(loaded.model, golden);
  }
}

TEST(SmolLm2Ref, ContinuesAsTransformersTokenForToken) {
  const std::string path = test::smollm2();
  LOWBIT_SKIP_WITHOUT(path, "SmolLM2-135M-Instruct.Q4_1.gguf");
  Loaded loaded(path, "ref", Activations::kDefault);
  for (size_t i = 0; i < 5; ++i) expect_golden(loaded.model, smollm2_golden()["prompts"][i]);
}

TEST_P(SmolLm2, TheGeneratorDrawsTheSameTokens) {
  const std::string path = test::smollm2();
  LOWBIT_SKIP_WITHOUT(path, "SmolLM2-135M-Instruct.Q4_1.gguf");
  LOWBIT_SKIP_WITHOUT_BACKEND(GetParam());
  Loaded loaded(path, GetParam(), Activations::kF32);
  Generator generator(loaded.model, loaded.tokenizer, DType::kF32);
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.ignore_eos = true;
  for (size_t i = 0; i < 3; ++i) {
    const Json& golden = smollm2_golden()["prompts"][i];
    const auto expected = golden["ids"].get<std::vector<int32_t>>();
    options.max_tokens = static_cast<int64_t>(expected.size());
    const auto prompt = golden["prompt_ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(generator.generate(prompt, options).ids, expected);
  }
}

TEST_P(SmolLm2, PerplexityOfEveryWindowEqualsTransformers) {
  const std::string path = test::smollm2(), text_path = test::shared("data/wikitext2-test.txt");
  LOWBIT_SKIP_WITHOUT(path, "SmolLM2-135M-Instruct.Q4_1.gguf");
  LOWBIT_SKIP_WITHOUT(text_path, "shared/data/wikitext2-test.txt");
  LOWBIT_SKIP_WITHOUT_BACKEND(GetParam());
  Loaded loaded(path, GetParam(), Activations::kF32);
  const std::string text = read_file(text_path, limits::kPromptBytes);
  for (const Json& golden : smollm2_golden()["perplexity"]) {
    const auto expected = golden["chunk_nll"].get<std::vector<double>>();
    const PerplexityResult result = perplexity(loaded.model, loaded.tokenizer, text,
                                               {.protocol = golden["protocol"].get<std::string>(),
                                                .context = golden["context"].get<int64_t>(),
                                                .chunks = static_cast<int64_t>(expected.size()),
                                                .kv_dtype = DType::kF32});
    ASSERT_EQ(result.chunk_nll.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(result.chunk_nll[i], expected[i], 1e-4) << golden["protocol"] << " window " << i;
    }
  }
}

// Inputs in 16 bits cost next to nothing.
TEST(SmolLm2Cuda, PerplexityWithRoundedActivationsIsThatOfTransformers) {
  const std::string path = test::smollm2(), text_path = test::shared("data/wikitext2-test.txt");
  LOWBIT_SKIP_WITHOUT(path, "SmolLM2-135M-Instruct.Q4_1.gguf");
  LOWBIT_SKIP_WITHOUT(text_path, "shared/data/wikitext2-test.txt");
  LOWBIT_SKIP_WITHOUT_BACKEND("cuda");
  Loaded loaded(path, "cuda", Activations::kDefault);
  const Json& golden = smollm2_golden()["perplexity"][0];
  const auto expected = golden["chunk_nll"].get<std::vector<double>>();
  const PerplexityResult result =
      perplexity(loaded.model, loaded.tokenizer, read_file(text_path, limits::kPromptBytes),
                 {.protocol = golden["protocol"].get<std::string>(),
                  .context = golden["context"].get<int64_t>(),
                  .chunks = static_cast<int64_t>(expected.size()),
                  .kv_dtype = DType::kF16});
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(result.chunk_nll[i], expected[i], 3e-3) << "window " << i;
  }
}

}  // namespace
}  // namespace lowbit

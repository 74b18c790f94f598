// The real model against transformers in fp32 (tools/golden/smollm2.py).
#include <gtest/gtest.h>

#include <algorithm>

#include "lowbit/base/file.h"
#include "lowbit/engine/generate.h"
#include "lowbit/eval/perplexity.h"
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

TEST(SmolLm2, CpuContinuesAsTransformersTokenForToken) {
  const std::string path = test::smollm2();
  LOWBIT_SKIP_WITHOUT(path, "SmolLM2-135M-Instruct.Q4_1.gguf");
  Loaded loaded(path, "cpu", Activations::kF32);
  Generator generator(loaded.model, loaded.tokenizer, DType::kF32);
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.ignore_eos = true;
  for (const Json& golden : smollm2_golden()["prompts"]) {
    const auto prompt = loaded.tokenizer.encode(golden["prompt"].get<std::string>());
    EXPECT_EQ(prompt, golden["prompt_ids"].get<std::vector<int32_t>>());
    const auto expected = golden["ids"].get<std::vector<int32_t>>();
    options.max_tokens = static_cast<int64_t>(expected.size());
    EXPECT_EQ(generator.generate(prompt, options).ids, expected)
        << golden["prompt"] << ", smallest margin " << golden["margin"];
  }
}

// The reference is slow, so it gets a few continuations as one batch: the highest logit at each
// position must be the next golden token, which is what drawing them one by one comes to.
TEST(SmolLm2, RefContinuesAsTransformersTokenForToken) {
  const std::string path = test::smollm2();
  LOWBIT_SKIP_WITHOUT(path, "SmolLM2-135M-Instruct.Q4_1.gguf");
  Loaded loaded(path, "ref", Activations::kDefault);
  StepBatch batch;
  std::vector<int32_t> expected;
  for (size_t i = 0; i < 3; ++i) {
    const Json& golden = smollm2_golden()["prompts"][i];
    auto ids = golden["prompt_ids"].get<std::vector<int32_t>>();
    const auto next = golden["ids"].get<std::vector<int32_t>>();
    for (size_t k = 0; k < next.size(); ++k) {
      batch.logit_rows.push_back(static_cast<int32_t>(batch.tokens.size() + ids.size() + k - 1));
    }
    ids.insert(ids.end(), next.begin(), next.end() - 1);
    expected.insert(expected.end(), next.begin(), next.end());
    ASSERT_LE(ids.size(), static_cast<size_t>(2 * kBlockTokens));
    const auto block = static_cast<int32_t>(2 * i);
    batch.sequences.push_back(
        {batch.size(), static_cast<int64_t>(ids.size()), 0, {block, block + 1}});
    batch.tokens.insert(batch.tokens.end(), ids.begin(), ids.end());
  }
  KvCache cache = loaded.model.make_kv_cache(6, DType::kF32);
  const Tensor logits = loaded.model.forward(batch, cache);
  std::vector<int32_t> highest;
  for (int64_t row = 0; row < logits.rows; ++row) {
    const float* begin = logits.row(row);
    highest.push_back(static_cast<int32_t>(std::max_element(begin, begin + logits.cols) - begin));
  }
  EXPECT_EQ(highest, expected);
}

TEST(SmolLm2, PerplexityOfEveryWindowEqualsTransformers) {
  const std::string path = test::smollm2(), text_path = test::shared("data/wikitext2-test.txt");
  LOWBIT_SKIP_WITHOUT(path, "SmolLM2-135M-Instruct.Q4_1.gguf");
  LOWBIT_SKIP_WITHOUT(text_path, "shared/data/wikitext2-test.txt");
  Loaded loaded(path, "cpu", Activations::kF32);
  const std::string text = read_file(text_path, limits::kPromptBytes);
  EXPECT_EQ(static_cast<int64_t>(loaded.tokenizer.encode(text).size()),
            smollm2_golden()["wikitext2_test_tokens"].get<int64_t>());
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

}  // namespace
}  // namespace lowbit

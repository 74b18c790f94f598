#include "lowbit/bench/latency.h"

#include <gtest/gtest.h>

#include "support/tiny_model.h"

namespace lowbit {
namespace {

TEST(Latency, SummarizesRepetitions) {
  const Rate odd = summarize({3, 1, 8});
  EXPECT_DOUBLE_EQ(odd.mean, 4);
  EXPECT_DOUBLE_EQ(odd.median, 3);
  EXPECT_DOUBLE_EQ(odd.stddev, std::sqrt(13.0));
  EXPECT_DOUBLE_EQ(summarize({4, 1, 2, 100}).median, 3);
  EXPECT_DOUBLE_EQ(summarize({5}).stddev, 0);
}

TEST(Latency, MeasuresARowForEveryPromptLength) {
  const test::TinyCheckpoint checkpoint(test::tiny_goldens().model("llama").config);
  const auto backend = make_backend("ref", {1, Activations::kDefault});
  Model model(checkpoint, *backend, {.context = 64, .max_batch = 8, .progress = false});
  const std::vector<LatencyRow> rows =
      measure_latency(model, {.prompt_tokens = {20, 64}, .decode_tokens = 4, .repetitions = 2});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].prompt_tokens, 64);
  for (const LatencyRow& row : rows) {
    EXPECT_EQ(row.decode_tokens, 4);
    EXPECT_GT(row.prefill_tok_s.median, 0);
    EXPECT_NEAR(row.weight_gb_s, row.decode_tok_s.median * model.weight_bytes() / 1e9, 1e-12);
    EXPECT_GT(row.peak_memory_mib, 1);
  }
  EXPECT_THROW(measure_latency(model, {.prompt_tokens = {65}}), Error);
  EXPECT_THROW(measure_latency(model, {.prompt_tokens = {0}}), Error);
  EXPECT_THROW(measure_latency(model, {.prompt_tokens = {8}, .repetitions = 0}), Error);
}

TEST(Latency, MeasuresARowForEveryNumberOfSequences) {
  const test::TinyCheckpoint checkpoint(test::tiny_goldens().model("llama").config);
  const auto backend = make_backend("ref", {1, Activations::kDefault});
  Model model(checkpoint, *backend, {.context = 64, .max_batch = 8, .progress = false});
  LatencyOptions options{.decode_tokens = 4, .repetitions = 2, .sequences = {1, 8}};
  const std::vector<BatchedRow> rows = measure_batched(model, options);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].sequences, 8);
  EXPECT_GT(rows[1].tok_s.median, 0);
  options.sequences = {9};
  EXPECT_THROW(measure_batched(model, options), Error);
  options.sequences.clear();
  EXPECT_TRUE(measure_batched(model, options).empty());
}

}  // namespace
}  // namespace lowbit

#include "lowbit/bench/throughput.h"

#include <gtest/gtest.h>

#include "support/engine_setup.h"

namespace lowbit {
namespace {

TEST(Throughput, PercentilesAreThoseOfNumpy) {
  const Latencies row = summarize_latencies({0.4, 0.1, 0.3, 0.2, 1.0});
  EXPECT_DOUBLE_EQ(row.mean, 400);
  EXPECT_DOUBLE_EQ(row.p50, 300);
  EXPECT_NEAR(row.p90, 760, 1e-9);
  EXPECT_NEAR(row.p99, 976, 1e-9);
  EXPECT_EQ(summarize_latencies({}).p99, 0);
}

TEST(Throughput, CountsEveryToken) {
  test::TinySetup setup;
  for (const double rate : {0.0, 2000.0}) {
    EngineOptions engine_options;
    engine_options.max_num_seqs = 4;
    Engine engine(setup.model, setup.tokenizer, std::move(engine_options));
    const ThroughputOptions options = {
        .num_prompts = 10, .input_len = 20, .output_len = 8, .request_rate = rate};
    const ThroughputResult result = measure_throughput(engine, options);
    EXPECT_EQ(result.stats.generation_tokens, 80u);
    EXPECT_EQ(result.stats.prompt_tokens, 200u);
    EXPECT_NEAR(result.output_tok_s * result.seconds, 80, 1e-6);
    EXPECT_NEAR(result.total_tok_s * result.seconds, 280, 1e-6);
    EXPECT_GT(result.itl.p50, 0);
    EXPECT_GE(result.ttft.p99, result.ttft.p50);
  }
}

TEST(Throughput, RefusesWhatDoesNotFit) {
  test::TinySetup setup(64);
  Engine engine(setup.model, setup.tokenizer);
  EXPECT_THROW(measure_throughput(engine, {.input_len = 60, .output_len = 5}), Error);
  EXPECT_THROW(measure_throughput(engine, {.num_prompts = 0, .input_len = 6}), Error);
  EXPECT_THROW(measure_throughput(engine, {.input_len = 6, .output_len = 6, .request_rate = -1}),
               Error);
}

}  // namespace
}  // namespace lowbit

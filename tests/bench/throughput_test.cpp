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

TEST(Throughput, SummariesFollowTheDefinitionsOfVllm) {
  const LoadSummary load =
      summarize_load({{1, 1.5, 3.5, 10, 5}, {2, 2.25, 2.25, 20, 1}}, {0.5, 0.5, 0.5, 0.5});
  EXPECT_DOUBLE_EQ(load.seconds, 2.5);
  EXPECT_EQ(load.output_tokens, 6);
  EXPECT_DOUBLE_EQ(load.total_tok_s, 36 / 2.5);
  EXPECT_DOUBLE_EQ(load.ttft.mean, 375);
  EXPECT_DOUBLE_EQ(load.tpot.mean, 500) << "of the request that has a second token";
  EXPECT_EQ(summarize_load({}, {}).output_tok_s, 0);
}

TEST(Throughput, CountsEveryToken) {
  test::TinySetup setup;
  for (const double rate : {0.0, 2000.0}) {
    EngineOptions engine_options;
    engine_options.max_num_seqs = 4;
    Engine engine(setup.model, setup.tokenizer, std::move(engine_options));
    const auto requests = random_workload(10, 20, 8, setup.model.config().vocab_size, 1);
    const ThroughputResult result = measure_throughput(engine, requests, {.request_rate = rate});
    EXPECT_EQ(result.stats.generation_tokens, 80u);
    EXPECT_EQ(result.stats.prompt_tokens, 200u);
    EXPECT_EQ(result.load.output_tokens, 80);
    EXPECT_NEAR(result.load.output_tok_s * result.load.seconds, 80, 1e-6);
    EXPECT_NEAR(result.load.total_tok_s * result.load.seconds, 280, 1e-6);
    EXPECT_GT(result.load.itl.p50, 0);
    EXPECT_GE(result.load.ttft.p99, result.load.ttft.p50);
  }
}

TEST(Throughput, RefusesWhatDoesNotFit) {
  test::TinySetup setup(64);
  Engine engine(setup.model, setup.tokenizer);
  EXPECT_THROW(measure_throughput(engine, random_workload(1, 60, 5, 50, 0)), Error);
  EXPECT_THROW(measure_throughput(engine, random_workload(1, 6, 6, 50, 0), {.request_rate = -1}),
               Error);
}

}  // namespace
}  // namespace lowbit

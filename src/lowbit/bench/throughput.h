// Speed of many requests at once, as `vllm bench throughput` measures it: random prompts of one
// length, answers of one length that no end token cuts short.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/engine/engine.h"

namespace lowbit {

struct ThroughputOptions {
  int64_t num_prompts = 1000;
  int64_t input_len = 100;
  int64_t output_len = 250;
  double request_rate = 0;  // arrivals per second, Poisson; 0: all at the start
  uint64_t seed = 0;        // of prompts, arrivals and draws
  SamplingParams sampling = {};
};

// In milliseconds.
struct Latencies {
  double mean = 0, p50 = 0, p90 = 0, p99 = 0;
};
// p-th percentile as numpy has it: linear between neighbours.
Latencies summarize_latencies(std::vector<double> seconds);

struct ThroughputResult {
  double seconds = 0;  // from the first arrival to the last token
  double requests_per_second = 0;
  double output_tok_s = 0;
  double total_tok_s = 0;
  Latencies ttft;  // arrival to first token
  Latencies tpot;  // per request: mean time of a token after the first
  Latencies itl;   // between tokens of a request
  EngineStats stats;
};

// Runs on this thread; the engine must be fresh. Throws kInvalidArgument if the engine cannot hold
// such a request, or a number is not positive; kDevice if the forward pass fails.
ThroughputResult measure_throughput(Engine& engine, const ThroughputOptions& options);

}  // namespace lowbit

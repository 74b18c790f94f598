// What clients saw of many requests, and what it says about speed. Definitions as vLLM's.
#pragma once

#include <cstdint>
#include <vector>

namespace lowbit {

// One request; times in seconds since the start of the measurement.
struct RequestTimes {
  double arrival = 0;  // when it was sent, or would have been if it had not had to wait its turn
  double first = 0;    // its first token
  double last = 0;     // its last
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
};

// In milliseconds.
struct Latencies {
  double mean = 0, p50 = 0, p90 = 0, p99 = 0;
};
// p-th percentile as numpy has it: linear between neighbours. All 0 of no values.
Latencies summarize_latencies(std::vector<double> seconds);

struct LoadSummary {
  double seconds = 0;  // from the first arrival to the last token
  int64_t requests = 0;
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  double requests_per_second = 0;
  double output_tok_s = 0;
  double total_tok_s = 0;
  Latencies ttft;  // arrival to first token
  Latencies tpot;  // per request: mean time of a token after the first
  Latencies itl;   // between tokens, or pieces of a stream, of a request
};

// gaps: in seconds, of all requests.
LoadSummary summarize_load(const std::vector<RequestTimes>& requests, std::vector<double> gaps);

}  // namespace lowbit

#include "lowbit/engine/engine_stats.h"

#include <algorithm>
#include <utility>

namespace lowbit {

namespace {

const std::vector<double>& first_token_bounds() {
  static const std::vector<double> bounds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                             0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                             20,    40,    80,   160,  640,  2560};
  return bounds;
}

const std::vector<double>& token_bounds() {
  static const std::vector<double> bounds = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
                                             0.3,  0.4,   0.5,  0.75,  1,   2.5,  5,
                                             7.5,  10,    20,   40,    80};
  return bounds;
}

const std::vector<double>& request_bounds() {
  static const std::vector<double> bounds = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                             30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
  return bounds;
}

// 1, 2, 5, 10, 20, 50, ... up to a context.
const std::vector<double>& count_bounds() {
  static const std::vector<double> bounds = {1,   2,    5,    10,   20,    50,    100,   200,
                                             500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
  return bounds;
}

}  // namespace

Histogram::Histogram(std::vector<double> upper_bounds)
    : bounds(std::move(upper_bounds)), counts(bounds.size() + 1) {}

void Histogram::add(double value) {
  const auto bound = std::lower_bound(bounds.begin(), bounds.end(), value);
  ++counts[static_cast<size_t>(bound - bounds.begin())];
  sum += value;
  ++count;
}

EngineStats::EngineStats()
    : time_to_first_token_seconds(first_token_bounds()),
      inter_token_latency_seconds(token_bounds()),
      request_time_per_output_token_seconds(token_bounds()),
      e2e_request_latency_seconds(request_bounds()),
      request_queue_time_seconds(request_bounds()),
      request_prefill_time_seconds(request_bounds()),
      request_decode_time_seconds(request_bounds()),
      request_prompt_tokens(count_bounds()),
      request_generation_tokens(count_bounds()),
      iteration_tokens({1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}) {}

}  // namespace lowbit

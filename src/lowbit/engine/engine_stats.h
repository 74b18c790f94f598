// What the engine counts, for /metrics and benchmarks.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/engine/request.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

// Prometheus' kind: counts[i] values were at most bounds[i] and above bounds[i - 1]; the last count
// is of those above all bounds.
struct Histogram {
  explicit Histogram(std::vector<double> upper_bounds);
  void add(double value);

  std::vector<double> bounds;
  std::vector<uint64_t> counts;  // [bounds.size() + 1]
  double sum = 0;
  uint64_t count = 0;
};

// Bounds are vLLM's.
struct EngineStats {
  EngineStats();

  // Now.
  int64_t running = 0;           // sequences
  int64_t waiting = 0;           // sequences
  int64_t kv_blocks = 0;         // of kBlockTokens tokens each
  int64_t kv_bytes = 0;          // of all blocks
  DType kv_dtype = DType::kF16;  // of what they hold
  int64_t kv_blocks_held = 0;    // by sequences
  int64_t kv_blocks_cached = 0;  // by the prefix cache alone: free as soon as they are needed
  double kv_usage() const {      // [0, 1]
    return kv_blocks > 0 ? static_cast<double>(kv_blocks_held) / static_cast<double>(kv_blocks) : 0;
  }
  bool healthy = true;
  std::string fault;  // why not

  // Since the start.
  uint64_t requests = 0;               // accepted
  std::array<uint64_t, 4> finished{};  // requests by FinishReason (of their last choice)
  uint64_t prompt_tokens = 0;          // of prompts that have been read
  uint64_t generation_tokens = 0;
  uint64_t prefix_cache_queries = 0;  // tokens looked up
  uint64_t prefix_cache_hits = 0;     // tokens found
  uint64_t preemptions = 0;
  uint64_t steps = 0;
  uint64_t draft_tokens = 0;     // proposed by speculative decoding
  uint64_t accepted_tokens = 0;  // of those, right
  double model_seconds = 0;      // in the forward pass
  double sample_seconds = 0;     // from logits to tokens
  double other_seconds = 0;      // scheduling, text, callbacks

  Histogram time_to_first_token_seconds, inter_token_latency_seconds,
      request_time_per_output_token_seconds, e2e_request_latency_seconds,
      request_queue_time_seconds, request_prefill_time_seconds, request_decode_time_seconds,
      request_prompt_tokens, request_generation_tokens, iteration_tokens;
};

}  // namespace lowbit

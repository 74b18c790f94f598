// The requests of a throughput measurement.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit {

struct WorkloadRequest {
  std::vector<int32_t> prompt;
  int64_t output_len = 0;
};

// Prompts of tokens drawn from the whole vocabulary. Throws kInvalidArgument if a number is not
// positive.
std::vector<WorkloadRequest> random_workload(int64_t num_prompts, int64_t input_len,
                                             int64_t output_len, int64_t vocab_size, uint64_t seed);

struct ConversationOptions {
  int64_t num_prompts = 1000;  // fewer if the file has fewer
  int64_t output_len = 0;      // 0: the length of the answer in the file
  int64_t max_tokens = 2048;   // prompt and answer; longer ones are left out
  uint64_t seed = 0;           // of their order
};

// First turns of conversations, as `vllm bench` takes them from ShareGPT: a JSON array or a line of
// JSON for each, with "conversations" ({"from", "value"}), "messages" ({"role", "content"}), or
// "prompt" and "completion". Left out: prompts and answers under 4 tokens, prompts over half of
// max_tokens. Throws kCorruptFile, or kInvalidArgument if nothing is left.
std::vector<WorkloadRequest> read_conversations(const std::string& path, const Tokenizer& tokenizer,
                                                const ConversationOptions& options);

// Seconds since the start: Poisson arrivals at `rate` a second, all 0 if it is 0. Throws
// kInvalidArgument if the rate is negative or not finite.
std::vector<double> arrival_times(size_t count, double rate, uint64_t seed);

}  // namespace lowbit

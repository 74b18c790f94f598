// Speed of one sequence: prefill of a prompt, and decode behind `depth` tokens of context (none by
// default), as llama-bench measures pp N and tg N @ d D. And of several that decode together.
#pragma once

#include <cstdint>
#include <vector>

#include "lowbit/model/model.h"

namespace lowbit {

struct LatencyOptions {
  std::vector<int64_t> prompt_tokens = {512};  // a row for each
  int64_t decode_tokens = 128;
  int64_t depth = 0;  // tokens before the first that is decoded
  int repetitions = 5;
  std::vector<int64_t> sequences;  // that decode side by side: a row for each number
  uint64_t seed = 0;               // of the random tokens
  DType kv_dtype = DType::kF16;
};

// Tokens per second over the repetitions.
struct Rate {
  double mean = 0;
  double stddev = 0;  // of the repetitions, with n - 1
  double median = 0;
};
Rate summarize(std::vector<double> values);

struct LatencyRow {
  int64_t prompt_tokens = 0;
  int64_t decode_tokens = 0;
  int64_t depth = 0;
  int repetitions = 0;
  Rate prefill_tok_s;
  Rate decode_tok_s;
  double weight_gb_s = 0;      // weight bytes that decode reads per second, 10^9, by the median
  double read_gb_s = 0;        // and the keys and values, on average over the tokens decoded
  double peak_memory_mib = 0;  // of the process, so far
};

// Each measurement follows one run that is not counted. Throws kInvalidArgument if a count is not
// positive or exceeds the model's context.
std::vector<LatencyRow> measure_latency(Model& model, const LatencyOptions& options);

// Decode of several sequences in one batch, from empty contexts.
struct BatchedRow {
  int64_t sequences = 0;
  Rate tok_s;  // of all sequences together
};

// A row for each of options.sequences, measured and checked as measure_latency does.
std::vector<BatchedRow> measure_batched(Model& model, const LatencyOptions& options);

// Highest resident size of this process so far.
double peak_memory_mib();

}  // namespace lowbit

// From logits to a token, in the order of llama.cpp's default chain: penalties, bias and masks,
// top-k, typical, top-p, min-p, temperature, draw.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "lowbit/engine/logit_row.h"
#include "lowbit/runtime/logit_query.h"

namespace lowbit {

// Defaults are llama.cpp's. temperature 0 is greedy: the highest logit, lowest id on ties.
struct SamplingParams {
  float temperature = 0.8f;
  int top_k = 40;               // 0: all
  float typical_p = 1.0f;       // 1: off
  float top_p = 0.95f;          // 1: off
  float min_p = 0.05f;          // 0: off
  float repeat_penalty = 1.0f;  // vLLM's repetition_penalty with repeat_last_n = -1
  int repeat_last_n = 64;       // tokens it looks back, the prompt's included; -1: all
  float presence_penalty = 0;   // subtracted once from tokens that the answer has
  float frequency_penalty = 0;  // subtracted as often as the answer has them
  // Added to logits; -100 or less forbids the token, whatever its logit.
  std::vector<std::pair<int32_t, float>> logit_bias = {};
  uint64_t seed = 0;
};

// Throws kInvalidArgument naming the parameter that is out of range, or if logit_bias names a token
// outside the vocabulary.
void validate(const SamplingParams& params, int64_t vocab_size);

// The rules on candidates, each on its own. They want them sorted, keep at least one, and keep the
// order.
//
// The fewest tokens whose information is nearest to the entropy and whose probabilities sum to at
// least typical_p (arXiv:2202.00666).
void apply_typical_p(std::vector<Candidate>& candidates, float typical_p);
// The fewest tokens whose probabilities sum to at least top_p; total: the sum of
// e^(logit - highest) over all tokens that count.
void apply_top_p(std::vector<Candidate>& candidates, float top_p, double total);
double sum_of_exp(const std::vector<Candidate>& candidates);
// The tokens whose probability is at least min_p times the highest.
void apply_min_p(std::vector<Candidate>& candidates, float min_p);
// The token at `uniform`, in [0, 1), of the cumulated softmax(logit / temperature).
int32_t draw(const std::vector<Candidate>& candidates, float temperature, double uniform);

// In [0, 1), from a hash of seed and position (splitmix64's finalizer).
double uniform_at(uint64_t seed, int64_t position);
// A seed for the index-th sibling; index 0 keeps the seed.
uint64_t sibling_seed(uint64_t seed, int index);

// What has to be known of a row to draw the token at `position`, if nothing is forbidden there.
LogitQuery query_of(const SamplingParams& params, int64_t position);

// Where a token is drawn.
struct DrawPoint {
  std::span<const int32_t> history;    // prompt and answer so far; the token is drawn at its end
  int64_t prompt_tokens = 0;           // of history
  std::span<const int32_t> forbidden;  // token ids
  std::span<const uint32_t> allowed;   // bits as TokenConstraint's; empty: all
};

// Workspace of one thread. What it draws depends on its arguments only: the random number is a
// function of seed and position.
class Sampler {
 public:
  // logits: [vocab], not changed. Throws kInvalidArgument if a logit is NaN or +infinity, or none
  // that may be drawn is finite.
  int32_t sample(const SamplingParams& params, std::span<const float> logits,
                 const DrawPoint& point);
  // The same token, from the answer to query_of(params, position); none if that does not tell.
  std::optional<int32_t> sample(const SamplingParams& params, const LogitAnswer& answer,
                                int64_t position);

 private:
  std::span<const float> adjusted(const SamplingParams& params, std::span<const float> logits,
                                  const DrawPoint& point);
  void penalize_answer(const SamplingParams& params, std::span<const int32_t> answer);
  // Fills candidates_ by the rules before temperature.
  void select(const SamplingParams& params, std::span<const float> logits);
  void select_nucleus(std::span<const float> logits, float top_p);
  int32_t draw_from_all(std::span<const float> logits, float temperature, double uniform);

  std::vector<float> adjusted_;
  std::vector<float> maxima_;
  std::vector<double> sums_;
  std::vector<int32_t> ids_;
  std::vector<Candidate> candidates_;
};

}  // namespace lowbit

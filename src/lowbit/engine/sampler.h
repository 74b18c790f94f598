// From logits to a token, in the order of llama.cpp's default chain: repeat penalty, top-k, top-p,
// min-p, temperature, draw.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace lowbit {

// Defaults are llama.cpp's. temperature 0 is greedy: the highest logit, lowest id on ties.
struct SamplingParams {
  float temperature = 0.8f;
  int top_k = 40;               // 0: all
  float top_p = 0.95f;          // 1: off
  float min_p = 0.05f;          // 0: off
  float typical_p = 1.0f;       // 1: off
  float repeat_penalty = 1.0f;  // vLLM's repetition_penalty with repeat_last_n = -1
  int repeat_last_n = 64;       // tokens it looks back, the prompt's included; -1: all
  float presence_penalty = 0;   // subtracted once from tokens that the answer has
  float frequency_penalty = 0;  // subtracted as often as the answer has them
  // Added to logits; -100 or less forbids the token, whatever its logit.
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;
};

// Throws kInvalidArgument naming the parameter that is out of range.
void validate(const SamplingParams& params);

// A token that may still be drawn: logit and id.
using Candidate = std::pair<float, int32_t>;

// The rules, each on its own. Those on candidates want them sorted (highest logit first, lowest id
// on ties), keep at least one, and keep the order.
//
// Logits of tokens in `recent` are divided by penalty if positive, else multiplied, once each.
void apply_repeat_penalty(std::span<float> logits, std::span<const int32_t> recent, float penalty);
// The top_k (0: all) tokens with the highest logits, sorted.
void select_top_k(std::span<const float> logits, int top_k, std::vector<Candidate>& candidates);
// The fewest tokens whose probabilities sum to at least top_p.
void apply_top_p(std::vector<Candidate>& candidates, float top_p);
// The tokens whose probability is at least min_p times the highest.
void apply_min_p(std::vector<Candidate>& candidates, float min_p);
// The token at `uniform`, in [0, 1), of the cumulated softmax(logit / temperature).
int32_t draw(const std::vector<Candidate>& candidates, float temperature, double uniform);

// In [0, 1), from a hash of seed and position (splitmix64's finalizer).
double uniform_at(uint64_t seed, int64_t position);

// Counter-based: the draw for (seed, position) never depends on what was drawn before.
class Sampler {
 public:
  // Throws kInvalidArgument as validate() does.
  explicit Sampler(const SamplingParams& params);
  // logits: [vocab], changed in place. history: prompt and generated ids so far. position: index of
  // the token to be drawn. Throws kInvalidArgument if a logit is NaN or +infinity, or none is
  // finite.
  int32_t sample(std::span<float> logits, std::span<const int32_t> history, int64_t position);

 private:
  SamplingParams params_;
  std::vector<Candidate> candidates_;
};

}  // namespace lowbit

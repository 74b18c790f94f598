// From logits to a token: penalties, temperature, top-k, top-p, min-p, in llama.cpp's order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lowbit {

// Defaults are llama.cpp's. temperature 0 is greedy: the highest logit, lowest id on ties.
struct SamplingParams {
  float temperature = 0.8f;
  int top_k = 40;       // 0: all
  float top_p = 0.95f;  // 1: off
  float min_p = 0.05f;  // 0: off
  float repeat_penalty = 1.0f;
  int repeat_last_n = 64;  // tokens the penalty looks back; -1: all
  uint64_t seed = 0;
};

// Throws kInvalidArgument naming the parameter that is out of range.
void validate(const SamplingParams& params);

// Counter-based: the draw for (seed, position) never depends on what was drawn before.
class Sampler {
 public:
  explicit Sampler(const SamplingParams& params);
  // logits: [vocab], changed in place. history: prompt and generated ids so far. position: index of
  // the token to be drawn. Throws kInvalidArgument if no logit is finite.
  int32_t sample(std::span<float> logits, std::span<const int32_t> history, int64_t position);

 private:
  SamplingParams params_;
  std::vector<std::pair<float, int32_t>> candidates_;
};

}  // namespace lowbit

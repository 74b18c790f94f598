#include "lowbit/engine/logprobs.h"

#include <algorithm>
#include <cmath>

namespace lowbit {

PositionLogprobs LogprobReader::read(std::span<const float> logits, int32_t id, int top) {
  chunk_maxima(logits, maxima_);
  const float highest = *std::max_element(maxima_.begin(), maxima_.end());
  const double log_sum = highest + std::log(chunk_sums(logits, highest, 1, sums_));
  const auto logprob = [&](float logit) { return static_cast<float>(logit - log_sum); };

  PositionLogprobs result;
  const float logit = logits[static_cast<size_t>(id)];
  result.token = {id, logprob(logit), 1 + count_above(logits, maxima_, logit)};
  if (top == 0) return result;
  select_top_k(logits, maxima_, static_cast<size_t>(top), candidates_);
  for (const auto& [value, token] : candidates_) {
    result.top.push_back({token, logprob(value), static_cast<int64_t>(result.top.size()) + 1});
  }
  return result;
}

}  // namespace lowbit

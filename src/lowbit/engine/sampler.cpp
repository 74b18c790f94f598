#include "lowbit/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lowbit/base/check.h"

namespace lowbit {

namespace {

bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

int32_t highest(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

void check_finite(std::span<const float> logits) {
  bool any = false;
  for (size_t i = 0; i < logits.size(); ++i) {
    LOWBIT_CHECK(logits[i] < std::numeric_limits<float>::infinity(), "the logit of token ", i,
                 " is ", logits[i], "; the model's weights are damaged or overflow");
    any = any || std::isfinite(logits[i]);
  }
  LOWBIT_CHECK(any, "none of ", logits.size(), " logits is finite");
}

uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

void validate(const SamplingParams& params) {
  LOWBIT_CHECK(params.temperature >= 0 && std::isfinite(params.temperature),
               "temperature must be 0 or more, not ", params.temperature);
  LOWBIT_CHECK(params.top_k >= 0, "top_k must be 0 (all) or more, not ", params.top_k);
  LOWBIT_CHECK(params.top_p > 0 && params.top_p <= 1, "top_p must be in (0, 1], not ",
               params.top_p);
  LOWBIT_CHECK(params.min_p >= 0 && params.min_p <= 1, "min_p must be in [0, 1], not ",
               params.min_p);
  LOWBIT_CHECK(params.repeat_penalty > 0 && std::isfinite(params.repeat_penalty),
               "repeat_penalty must be positive, not ", params.repeat_penalty);
  LOWBIT_CHECK(params.repeat_last_n >= -1, "repeat_last_n must be -1 (all) or more, not ",
               params.repeat_last_n);
}

void apply_repeat_penalty(std::span<float> logits, std::span<const int32_t> recent, float penalty) {
  std::vector<int32_t> ids(recent.begin(), recent.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) continue;
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

void select_top_k(std::span<const float> logits, int top_k, std::vector<Candidate>& candidates) {
  candidates.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i])) candidates.emplace_back(logits[i], static_cast<int32_t>(i));
  }
  const size_t keep =
      top_k == 0 ? candidates.size() : std::min(candidates.size(), static_cast<size_t>(top_k));
  const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(keep);
  std::partial_sort(candidates.begin(), end, candidates.end(), ranks_before);
  candidates.resize(keep);
}

void apply_top_p(std::vector<Candidate>& candidates, float top_p) {
  if (top_p >= 1) return;
  const double top = candidates.front().first;
  double total = 0;
  for (const Candidate& candidate : candidates) total += std::exp(candidate.first - top);
  double sum = 0;
  size_t keep = 0;
  while (keep < candidates.size() && sum < top_p * total) {
    sum += std::exp(candidates[keep++].first - top);
  }
  candidates.resize(std::max<size_t>(keep, 1));
}

void apply_min_p(std::vector<Candidate>& candidates, float min_p) {
  if (min_p <= 0) return;
  const double bound = candidates.front().first + std::log(static_cast<double>(min_p));
  size_t keep = 1;
  while (keep < candidates.size() && candidates[keep].first >= bound) ++keep;
  candidates.resize(keep);
}

int32_t draw(const std::vector<Candidate>& candidates, float temperature, double uniform) {
  const double top = candidates.front().first, scale = 1.0 / temperature;
  double total = 0;
  for (const Candidate& candidate : candidates) total += std::exp((candidate.first - top) * scale);
  double left = uniform * total;
  for (const Candidate& candidate : candidates) {
    left -= std::exp((candidate.first - top) * scale);
    if (left < 0) return candidate.second;
  }
  return candidates.back().second;  // rounding left a crumb
}

double uniform_at(uint64_t seed, int64_t position) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
  const uint64_t key = mix(seed + kGolden);
  const uint64_t bits = mix(key + (static_cast<uint64_t>(position) + 1) * kGolden);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

Sampler::Sampler(const SamplingParams& params) : params_(params) { validate(params_); }

int32_t Sampler::sample(std::span<float> logits, std::span<const int32_t> history,
                        int64_t position) {
  check_finite(logits);
  if (params_.repeat_penalty != 1.0f) {
    const size_t look_back =
        params_.repeat_last_n < 0
            ? history.size()
            : std::min(history.size(), static_cast<size_t>(params_.repeat_last_n));
    apply_repeat_penalty(logits, history.last(look_back), params_.repeat_penalty);
  }
  if (params_.temperature == 0) return highest(logits);
  select_top_k(logits, params_.top_k, candidates_);
  apply_top_p(candidates_, params_.top_p);
  apply_min_p(candidates_, params_.min_p);
  return draw(candidates_, params_.temperature, uniform_at(params_.seed, position));
}

}  // namespace lowbit

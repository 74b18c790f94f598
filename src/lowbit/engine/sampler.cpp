#include "lowbit/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"

namespace lowbit {

namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();
constexpr float kForbiddingBias = -100;  // OpenAI's "should result in a ban"

uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void sort_by_rank(std::vector<Candidate>& candidates) {
  std::sort(candidates.begin(), candidates.end(), ranks_before);
}

void apply_repeat_penalty(std::span<float> logits, std::span<const int32_t> ids, float penalty) {
  for (const int32_t id : ids) {
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

void apply_bias(std::span<float> logits, std::span<const std::pair<int32_t, float>> biases) {
  for (const auto& [id, bias] : biases) {
    float& logit = logits[static_cast<size_t>(id)];
    logit = bias <= kForbiddingBias ? kForbidden : logit + bias;
  }
}

void apply_mask(std::span<float> logits, std::span<const uint32_t> allowed) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if ((allowed[i / 32] >> (i % 32) & 1u) == 0) logits[i] = kForbidden;
  }
}

bool penalizes_repeats(const SamplingParams& params) { return params.repeat_penalty != 1.0f; }
bool penalizes_answer(const SamplingParams& params) {
  return params.presence_penalty != 0 || params.frequency_penalty != 0;
}
// Whether logits change before anything is chosen among them.
bool adjusts(const SamplingParams& params) {
  return penalizes_repeats(params) || penalizes_answer(params) || !params.logit_bias.empty();
}

// Whether every token may be drawn.
bool draws_from_all(const SamplingParams& params) {
  return params.top_k == 0 && params.typical_p >= 1 && params.top_p >= 1 && params.min_p <= 0;
}
float scale_of(float temperature) { return std::min(1 / temperature, 1e30f); }

bool in_range(float value, float low, float high) { return value >= low && value <= high; }

}  // namespace

void validate(const SamplingParams& params, int64_t vocab_size) {
  LOWBIT_CHECK(params.temperature >= 0 && std::isfinite(params.temperature),
               "temperature must be 0 or more, not ", params.temperature);
  LOWBIT_CHECK(params.top_k >= 0, "top_k must be 0 (all) or more, not ", params.top_k);
  LOWBIT_CHECK(params.typical_p > 0 && params.typical_p <= 1, "typical_p must be in (0, 1], not ",
               params.typical_p);
  LOWBIT_CHECK(params.top_p > 0 && params.top_p <= 1, "top_p must be in (0, 1], not ",
               params.top_p);
  LOWBIT_CHECK(in_range(params.min_p, 0, 1), "min_p must be in [0, 1], not ", params.min_p);
  LOWBIT_CHECK(params.repeat_penalty > 0 && std::isfinite(params.repeat_penalty),
               "repeat_penalty must be positive, not ", params.repeat_penalty);
  LOWBIT_CHECK(params.repeat_last_n >= -1, "repeat_last_n must be -1 (all) or more, not ",
               params.repeat_last_n);
  LOWBIT_CHECK(in_range(params.presence_penalty, -2, 2),
               "presence_penalty must be in [-2, 2], not ", params.presence_penalty);
  LOWBIT_CHECK(in_range(params.frequency_penalty, -2, 2),
               "frequency_penalty must be in [-2, 2], not ", params.frequency_penalty);
  LOWBIT_CHECK(params.logit_bias.size() <= limits::kLogitBiases, "logit_bias has ",
               params.logit_bias.size(), " entries; at most ", limits::kLogitBiases);
  for (const auto& [id, bias] : params.logit_bias) {
    LOWBIT_CHECK(id >= 0 && id < vocab_size, "logit_bias of token ", id,
                 ", which is outside the vocabulary of ", vocab_size);
    LOWBIT_CHECK(in_range(bias, -100, 100), "logit_bias must be in [-100, 100], not ", bias);
  }
}

double sum_of_exp(const std::vector<Candidate>& candidates) {
  const double top = candidates.front().first;
  double total = 0;
  for (const Candidate& candidate : candidates) total += std::exp(candidate.first - top);
  return total;
}

void apply_typical_p(std::vector<Candidate>& candidates, float typical_p) {
  if (typical_p >= 1) return;
  const double log_total = std::log(sum_of_exp(candidates)) + candidates.front().first;
  double entropy = 0;
  for (const Candidate& candidate : candidates) {
    const double logprob = candidate.first - log_total;
    entropy -= std::exp(logprob) * logprob;
  }
  const auto surprise = [&](const Candidate& candidate) {
    return std::abs(log_total - candidate.first - entropy);
  };
  std::stable_sort(
      candidates.begin(), candidates.end(),
      [&](const Candidate& a, const Candidate& b) { return surprise(a) < surprise(b); });
  double sum = 0;
  size_t keep = 0;
  while (keep < candidates.size() && sum < typical_p) {
    sum += std::exp(candidates[keep++].first - log_total);
  }
  candidates.resize(keep);
  sort_by_rank(candidates);
}

void apply_top_p(std::vector<Candidate>& candidates, float top_p, double total) {
  if (top_p >= 1) return;
  const double top = candidates.front().first;
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

uint64_t sibling_seed(uint64_t seed, int index) {
  return index == 0 ? seed : mix(mix(seed) + static_cast<uint64_t>(index));
}

void Sampler::penalize_answer(const SamplingParams& params, std::span<const int32_t> answer) {
  ids_.assign(answer.begin(), answer.end());
  std::sort(ids_.begin(), ids_.end());
  for (auto begin = ids_.begin(); begin != ids_.end();) {
    const auto end = std::upper_bound(begin, ids_.end(), *begin);
    adjusted_[static_cast<size_t>(*begin)] -=
        params.presence_penalty + params.frequency_penalty * static_cast<float>(end - begin);
    begin = end;
  }
}

std::span<const float> Sampler::adjusted(const SamplingParams& params,
                                         std::span<const float> logits, const DrawPoint& point) {
  if (!adjusts(params) && point.forbidden.empty() && point.allowed.empty()) return logits;
  adjusted_.assign(logits.begin(), logits.end());
  if (penalizes_repeats(params)) {
    const size_t size = point.history.size();
    const size_t back =
        params.repeat_last_n < 0 ? size : std::min(size, static_cast<size_t>(params.repeat_last_n));
    ids_.assign(point.history.end() - static_cast<std::ptrdiff_t>(back), point.history.end());
    std::sort(ids_.begin(), ids_.end());
    ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
    apply_repeat_penalty(adjusted_, ids_, params.repeat_penalty);
  }
  if (penalizes_answer(params)) {
    penalize_answer(params, point.history.subspan(static_cast<size_t>(point.prompt_tokens)));
  }
  apply_bias(adjusted_, params.logit_bias);
  for (const int32_t id : point.forbidden) adjusted_[static_cast<size_t>(id)] = kForbidden;
  if (!point.allowed.empty()) apply_mask(adjusted_, point.allowed);
  return adjusted_;
}

// Without a top_k to begin with, most of a vocabulary is out of reach: looks at ever more of it
// until the probabilities sum up.
void Sampler::select_nucleus(std::span<const float> logits, float top_p) {
  const float top = *std::max_element(maxima_.begin(), maxima_.end());
  const double total = chunk_sums(logits, top, 1, sums_);
  for (float reach = 4;; reach *= 2) {
    candidates_.clear();
    gather_at_least(logits, maxima_, top - reach, candidates_);
    double sum = 0;
    for (const Candidate& candidate : candidates_) sum += std::exp(double{candidate.first} - top);
    if (sum >= top_p * total || reach > 128) break;
  }
  sort_by_rank(candidates_);
  apply_top_p(candidates_, top_p, total);
}

void Sampler::select(const SamplingParams& params, std::span<const float> logits) {
  if (params.top_k > 0 || params.typical_p < 1) {
    const size_t top_k = params.top_k > 0 ? static_cast<size_t>(params.top_k) : logits.size();
    select_top_k(logits, maxima_, top_k, candidates_);
    apply_typical_p(candidates_, params.typical_p);
    apply_top_p(candidates_, params.top_p, sum_of_exp(candidates_));
  } else if (params.top_p < 1) {
    select_nucleus(logits, params.top_p);
  } else {
    const float top = *std::max_element(maxima_.begin(), maxima_.end());
    candidates_.clear();
    gather_at_least(logits, maxima_, top + std::log(params.min_p) - 1, candidates_);
    sort_by_rank(candidates_);
  }
  apply_min_p(candidates_, params.min_p);
}

int32_t Sampler::draw_from_all(std::span<const float> logits, float temperature, double uniform) {
  const float top = *std::max_element(maxima_.begin(), maxima_.end());
  const float scale = scale_of(temperature);
  double left = uniform * chunk_sums(logits, top, scale, sums_);
  size_t chunk = 0;
  while (chunk + 1 < sums_.size() && left >= sums_[chunk]) left -= sums_[chunk++];
  // The last that is possible stands in if rounding left a crumb.
  while (sums_[chunk] == 0) --chunk;
  const size_t begin = chunk * kRowChunk, size = std::min(kRowChunk, logits.size() - begin);
  float weights[kRowChunk];
  chunk_exp(logits.subspan(begin, size), top, scale, weights);
  size_t drawn = size - 1;
  while (weights[drawn] == 0) --drawn;
  for (size_t i = 0; i < drawn; ++i) {
    left -= static_cast<double>(weights[i]);
    if (left < 0) drawn = i;
  }
  return static_cast<int32_t>(begin + drawn);
}

LogitQuery query_of(const SamplingParams& params, int64_t position) {
  LogitQuery query;
  if (adjusts(params)) return query;
  if (params.temperature == 0) {
    query.kind = LogitQuery::Kind::kHighest;
  } else if (draws_from_all(params)) {
    query.kind = LogitQuery::Kind::kDraw;
    query.scale = scale_of(params.temperature);
    query.uniform = uniform_at(params.seed, position);
  } else if (params.top_k > 0 ? params.top_k <= kMostTop : params.typical_p >= 1) {
    query.kind = LogitQuery::Kind::kTop;
    query.count = params.top_k > 0 ? params.top_k : kMostTop;
    query.total = params.top_k == 0 && params.top_p < 1;
  }
  return query;
}

std::optional<int32_t> Sampler::sample(const SamplingParams& params, const LogitAnswer& answer,
                                       int64_t position) {
  if (!answer.known) return std::nullopt;
  if (answer.top.empty()) return answer.id;
  candidates_ = answer.top;
  sort_by_rank(candidates_);
  if (params.top_k > 0) {
    candidates_.resize(std::min(candidates_.size(), static_cast<size_t>(params.top_k)));
    apply_typical_p(candidates_, params.typical_p);
    apply_top_p(candidates_, params.top_p, sum_of_exp(candidates_));
  } else if (params.top_p < 1) {
    if (sum_of_exp(candidates_) < params.top_p * answer.total) return std::nullopt;
    apply_top_p(candidates_, params.top_p, answer.total);
  } else if (answer.bound > candidates_[0].first + std::log(params.min_p) - 0.01f) {
    return std::nullopt;  // 0.01: above the rounding of this sum
  }
  apply_min_p(candidates_, params.min_p);
  return draw(candidates_, params.temperature, uniform_at(params.seed, position));
}

int32_t Sampler::sample(const SamplingParams& params, std::span<const float> logits,
                        const DrawPoint& point) {
  logits = adjusted(params, logits, point);
  chunk_maxima(logits, maxima_);
  if (params.temperature == 0) return highest(logits, maxima_);
  const double uniform = uniform_at(params.seed, static_cast<int64_t>(point.history.size()));
  if (draws_from_all(params)) {
    return draw_from_all(logits, params.temperature, uniform);
  }
  select(params, logits);
  return draw(candidates_, params.temperature, uniform);
}

}  // namespace lowbit

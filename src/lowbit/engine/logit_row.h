// Passes over one row of logits, as wide as a vocabulary: what sampling spends its time on. A row
// is seen as chunks of kRowChunk; the highest logit of each chunk tells later passes what to skip.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace lowbit {

constexpr size_t kRowChunk = 64;

// A token that may still be drawn: logit and id.
using Candidate = std::pair<float, int32_t>;

// Higher logit first, lower id on ties.
inline bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

// The highest logit of each chunk. Throws kInvalidArgument naming the token if a logit is NaN or
// +infinity, or if none is finite.
void chunk_maxima(std::span<const float> logits, std::vector<float>& maxima);

// The lowest id that has the highest logit.
int32_t highest(std::span<const float> logits, std::span<const float> maxima);

// Appends the finite logits of at least `bound`, by id.
void gather_at_least(std::span<const float> logits, std::span<const float> maxima, float bound,
                     std::vector<Candidate>& candidates);

// The top_k tokens with the highest logits, sorted.
void select_top_k(std::span<const float> logits, std::span<const float> maxima, size_t top_k,
                  std::vector<Candidate>& candidates);

// e^((logits[i] - top) * scale) for i < kRowChunk or the end; top must be the highest, scale
// positive. Relative error below 3e-7, and 0 below e^-87.
void chunk_exp(std::span<const float> logits, float top, float scale, std::span<float> out);

// Sums of chunk_exp() over each chunk; returns the sum of all.
double chunk_sums(std::span<const float> logits, float top, float scale, std::vector<double>& sums);

// How many logits are above `bound`.
int64_t count_above(std::span<const float> logits, std::span<const float> maxima, float bound);

}  // namespace lowbit

#include "lowbit/engine/logit_row.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lowbit/base/check.h"

namespace lowbit {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kLanes = 4;  // what every x86-64 has

using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

Floats load(const float* from) {
  Floats values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

Floats all(float value) { return Floats{value, value, value, value}; }

std::span<const float> chunk_of(std::span<const float> row, size_t chunk) {
  const size_t begin = chunk * kRowChunk;
  return row.subspan(begin, std::min(kRowChunk, row.size() - begin));
}

// The highest of a whole chunk, or NaN if something in it is NaN or +infinity.
float whole_chunk_maximum(const float* x) {
  Floats high[4] = {load(x), load(x + 4), load(x + 8), load(x + 12)};
  const Floats infinity = all(kInfinity);
  Ints fine =
      (high[0] < infinity) & (high[1] < infinity) & (high[2] < infinity) & (high[3] < infinity);
  for (size_t i = 16; i < kRowChunk; i += 16) {
    for (size_t j = 0; j < 4; ++j) {
      const Floats values = load(x + i + 4 * j);
      fine &= values < infinity;
      high[j] = values > high[j] ? values : high[j];
    }
  }
  for (size_t j = 1; j < 4; ++j) high[0] = high[j] > high[0] ? high[j] : high[0];
  float result = high[0][0];
  for (size_t lane = 1; lane < kLanes; ++lane) result = std::max(result, high[0][lane]);
  const bool good = (fine[0] & fine[1] & fine[2] & fine[3]) != 0;
  return good ? result : std::nanf("");
}

float chunk_maximum(std::span<const float> chunk) {
  if (chunk.size() == kRowChunk) return whole_chunk_maximum(chunk.data());
  float result = -kInfinity;
  for (const float value : chunk) {
    if (!(value < kInfinity)) return std::nanf("");
    result = std::max(result, value);
  }
  return result;
}

[[noreturn]] void fail_not_finite(std::span<const float> logits) {
  size_t i = 0;
  while (logits[i] < kInfinity) ++i;
  fail(ErrorKind::kInvalidArgument, "the logit of token ", i, " is ", logits[i],
       "; the model's weights are damaged or overflow");
}

// e^x for x <= 0: 2^n * e^r with |r| <= ln(2) / 2, e^r by its Taylor series.
Floats exp_not_positive(Floats x) {
  const Floats rounder = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Ints tiny = x < all(-87.0f);
  x = tiny ? all(-87.0f) : x;
  const Floats n = (x * all(1.44269504f) + rounder) - rounder;
  const Floats r = (x - n * all(0.693359375f)) - n * all(-2.12194440e-4f);
  Floats p = all(1.f / 5040);
  p = p * r + all(1.f / 720);
  p = p * r + all(1.f / 120);
  p = p * r + all(1.f / 24);
  p = p * r + all(1.f / 6);
  p = p * r + all(0.5f);
  p = p * r + all(1.f);
  p = p * r + all(1.f);
  const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
  Floats power;
  std::memcpy(&power, &exponent, sizeof(power));
  return tiny ? all(0.f) : p * power;
}

}  // namespace

void chunk_maxima(std::span<const float> logits, std::vector<float>& maxima) {
  maxima.resize((logits.size() + kRowChunk - 1) / kRowChunk);
  float top = -kInfinity;
  for (size_t i = 0; i < maxima.size(); ++i) {
    maxima[i] = chunk_maximum(chunk_of(logits, i));
    if (std::isnan(maxima[i])) fail_not_finite(logits);
    top = std::max(top, maxima[i]);
  }
  LOWBIT_CHECK(top > -kInfinity, "none of ", logits.size(), " logits is finite");
}

int32_t highest(std::span<const float> logits, std::span<const float> maxima) {
  const auto best = std::max_element(maxima.begin(), maxima.end());
  const auto begin = static_cast<size_t>(best - maxima.begin()) * kRowChunk;
  size_t i = begin;
  while (logits[i] != *best) ++i;
  return static_cast<int32_t>(i);
}

void gather_at_least(std::span<const float> logits, std::span<const float> maxima, float bound,
                     std::vector<Candidate>& candidates) {
  for (size_t i = 0; i < maxima.size(); ++i) {
    if (maxima[i] < bound) continue;
    const std::span<const float> chunk = chunk_of(logits, i);
    for (size_t j = 0; j < chunk.size(); ++j) {
      if (chunk[j] >= bound && chunk[j] > -kInfinity) {
        candidates.emplace_back(chunk[j], static_cast<int32_t>(i * kRowChunk + j));
      }
    }
  }
}

// The top_k-th highest chunk has top_k logits at or above its maximum, so nothing below counts.
void select_top_k(std::span<const float> logits, std::span<const float> maxima, size_t top_k,
                  std::vector<Candidate>& candidates) {
  candidates.clear();
  float bound = -kInfinity;
  if (top_k <= maxima.size()) {
    std::vector<float> order(maxima.begin(), maxima.end());
    const auto kth = order.begin() + static_cast<std::ptrdiff_t>(top_k) - 1;
    std::nth_element(order.begin(), kth, order.end(), std::greater<>());
    bound = *kth;
  }
  gather_at_least(logits, maxima, bound, candidates);
  const size_t keep = std::min(candidates.size(), top_k);
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(keep),
                    candidates.end(), ranks_before);
  candidates.resize(keep);
}

void chunk_exp(std::span<const float> logits, float top, float scale, std::span<float> out) {
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    const Floats values = exp_not_positive((load(&logits[i]) - all(top)) * all(scale));
    std::memcpy(&out[i], &values, sizeof(values));
  }
  for (; i < logits.size(); ++i) {
    out[i] = exp_not_positive(all((logits[i] - top) * scale))[0];
  }
}

double chunk_sums(std::span<const float> logits, float top, float scale,
                  std::vector<double>& sums) {
  sums.resize((logits.size() + kRowChunk - 1) / kRowChunk);
  float values[kRowChunk];
  double total = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    const std::span<const float> chunk = chunk_of(logits, i);
    chunk_exp(chunk, top, scale, values);
    sums[i] = 0;
    for (size_t j = 0; j < chunk.size(); ++j) sums[i] += static_cast<double>(values[j]);
    total += sums[i];
  }
  return total;
}

int64_t count_above(std::span<const float> logits, std::span<const float> maxima, float bound) {
  int64_t count = 0;
  for (size_t i = 0; i < maxima.size(); ++i) {
    if (maxima[i] <= bound) continue;
    for (const float value : chunk_of(logits, i)) count += value > bound ? 1 : 0;
  }
  return count;
}

}  // namespace lowbit

// What a query about a row of logits should find, by definition.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "lowbit/engine/logit_row.h"
#include "lowbit/engine/sampler.h"
#include "lowbit/runtime/logit_query.h"

namespace lowbit::test {

// The token at query.uniform, as sampling from all of a row on the host draws it.
inline int32_t drawn_on_host(std::span<const float> row, const LogitQuery& query) {
  std::vector<double> sums;
  const float top = *std::max_element(row.begin(), row.end());
  double left = query.uniform * chunk_sums(row, top, query.scale, sums);
  size_t chunk = 0;
  while (chunk + 1 < sums.size() && left >= sums[chunk]) left -= sums[chunk++];
  while (sums[chunk] == 0) --chunk;
  const size_t begin = chunk * kRowChunk, size = std::min(kRowChunk, row.size() - begin);
  std::vector<float> weights(size);
  chunk_exp(row.subspan(begin, size), top, query.scale, weights);
  size_t last = size - 1;
  while (weights[last] == 0) --last;
  for (size_t i = 0; i < last; ++i) {
    left -= static_cast<double>(weights[i]);
    if (left < 0) return static_cast<int32_t>(begin + i);
  }
  return static_cast<int32_t>(begin + last);
}

inline LogitAnswer answer_on_host(std::span<const float> row, const LogitQuery& query) {
  using Kind = LogitQuery::Kind;
  const float infinity = std::numeric_limits<float>::infinity();
  const auto highest = std::max_element(row.begin(), row.end());
  LogitAnswer answer;
  answer.known = query.kind != Kind::kAll &&
                 std::all_of(row.begin(), row.end(), [&](float x) { return x < infinity; }) &&
                 *highest > -infinity;
  if (!answer.known) return answer;
  if (query.kind == Kind::kHighest) answer.id = static_cast<int32_t>(highest - row.begin());
  if (query.kind == Kind::kDraw) answer.id = drawn_on_host(row, query);
  std::vector<float> maxima, order;
  std::vector<double> sums;
  if (query.kind == Kind::kToken) {
    answer.id = query.token;
    answer.top = {{row[static_cast<size_t>(query.token)], query.token}};
    answer.bound = *highest;
    answer.total = chunk_sums(row, *highest, 1, sums);
  }
  if (query.kind != Kind::kTop) return answer;
  chunk_maxima(row, maxima);
  order = maxima;
  std::sort(order.begin(), order.end(), std::greater<>());
  const auto count = static_cast<size_t>(query.count);
  answer.bound = count <= order.size() ? order[count - 1] : -infinity;
  gather_at_least(row, maxima, answer.bound, answer.top);
  if (answer.top.size() > static_cast<size_t>(kMostCandidates)) return {};
  if (query.total) answer.total = chunk_sums(row, *highest, 1, sums);
  return answer;
}

}  // namespace lowbit::test

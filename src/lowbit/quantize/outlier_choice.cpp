#include "lowbit/quantize/outlier_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lowbit {

namespace {

constexpr int64_t kRounds = 16;

// The `count` columns of the highest rank among those that are not taken; of equal ones the first.
void take_highest(const std::vector<double>& ranks, int64_t count, std::vector<int32_t>& taken) {
  std::vector<int32_t> order;
  for (int32_t k = 0; k < static_cast<int32_t>(ranks.size()); ++k) {
    if (std::find(taken.begin(), taken.end(), k) == taken.end()) order.push_back(k);
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return ranks[static_cast<size_t>(a)] > ranks[static_cast<size_t>(b)];
  });
  taken.insert(taken.end(), order.begin(), order.begin() + count);
}

double mean_square(const float* row, int64_t cols) {
  double sum = 0;
  for (int64_t k = 0; k < cols; ++k) sum += static_cast<double>(row[k]) * row[k];
  return sum / static_cast<double>(cols);
}

// x^2 over the token's mean of x^2, [tokens][cols]; tokens of zeros stay so.
std::vector<float> shares_of(std::span<const float> rows, int64_t cols, ThreadPool& pool) {
  std::vector<float> shares(rows.size());
  pool.parallel_for(static_cast<int64_t>(rows.size()) / cols, [&](int64_t t, int) {
    const float* row = rows.data() + t * cols;
    const double mean = mean_square(row, cols);
    const auto inverse = static_cast<float>(mean > 0 ? 1 / mean : 0);
    for (int64_t k = 0; k < cols; ++k) shares[t * cols + k] = row[k] * row[k] * inverse;
  });
  return shares;
}

// sum over tokens of weights[t] * shares[t][k]^power, of each column.
std::vector<double> column_sums(const std::vector<float>& shares, int64_t cols, int power,
                                const std::vector<float>& weights, ThreadPool& pool) {
  constexpr int64_t kColumns = 64;  // per turn of a thread
  std::vector<double> sums(static_cast<size_t>(cols));
  pool.parallel_for((cols + kColumns - 1) / kColumns, [&](int64_t index, int) {
    const int64_t begin = index * kColumns, end = std::min(cols, begin + kColumns);
    for (size_t t = 0; t < weights.size(); ++t) {
      const float* row = shares.data() + t * cols;
      for (int64_t k = begin; k < end; ++k) {
        const float square = row[k] * row[k];
        sums[k] += static_cast<double>(weights[t] * (power == 2 ? square : square * square));
      }
    }
  });
  return sums;
}

std::vector<int32_t> choose_smoothly(const std::vector<float>& shares, int64_t cols, int64_t count,
                                     ThreadPool& pool) {
  const int64_t tokens = static_cast<int64_t>(shares.size()) / cols;
  std::vector<int32_t> taken;
  std::vector<float> weights(static_cast<size_t>(tokens));
  for (int64_t round = 0; round < kRounds; ++round) {
    const int64_t wanted = count * (round + 1) / kRounds - static_cast<int64_t>(taken.size());
    if (wanted == 0) continue;
    // The derivative of (sum of shares^4)^(1/4) by each term.
    pool.parallel_for(tokens, [&](int64_t t, int) {
      const float* row = shares.data() + t * cols;
      double sum = 0;
      for (int64_t k = 0; k < cols; ++k) sum += std::pow(static_cast<double>(row[k]), 4);
      for (const int32_t k : taken) sum -= std::pow(static_cast<double>(row[k]), 4);
      weights[static_cast<size_t>(t)] = static_cast<float>(std::pow(std::max(sum, 1e-6), -0.75));
    });
    take_highest(column_sums(shares, cols, 4, weights, pool), wanted, taken);
  }
  std::sort(taken.begin(), taken.end());
  return taken;
}

}  // namespace

double step_left(std::span<const float> rows, int64_t cols, const std::vector<int32_t>& outliers) {
  std::vector<bool> apart(static_cast<size_t>(cols));
  for (const int32_t k : outliers) apart[static_cast<size_t>(k)] = true;
  double sum = 0;
  const int64_t tokens = static_cast<int64_t>(rows.size()) / cols;
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = rows.data() + t * cols;
    const double mean = mean_square(row, cols);
    double largest = 0;
    for (int64_t k = 0; k < cols; ++k) {
      if (!apart[static_cast<size_t>(k)]) {
        largest = std::max(largest, std::fabs(static_cast<double>(row[k])));
      }
    }
    if (mean > 0) sum += largest * largest / mean;
  }
  return sum / static_cast<double>(std::max<int64_t>(tokens, 1));
}

std::vector<int32_t> choose_outliers(std::span<const float> rows, int64_t cols, int64_t count,
                                     ThreadPool& pool) {
  const std::vector<float> shares = shares_of(rows, cols, pool);
  const std::vector<int32_t> smooth = choose_smoothly(shares, cols, count, pool);
  const std::vector<float> ones(rows.size() / static_cast<size_t>(cols), 1.f);
  std::vector<int32_t> prominent;
  take_highest(column_sums(shares, cols, 2, ones, pool), count, prominent);
  std::sort(prominent.begin(), prominent.end());
  return step_left(rows, cols, smooth) <= step_left(rows, cols, prominent) ? smooth : prominent;
}

}  // namespace lowbit

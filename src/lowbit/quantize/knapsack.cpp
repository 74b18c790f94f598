#include "lowbit/quantize/knapsack.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

namespace lowbit {

namespace {

constexpr int64_t kMostSteps = 1 << 15;
constexpr double kLargestWhole = 0x1p53;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// An option that may be part of the answer; `extra` is its cost above the item's cheapest.
struct Candidate {
  size_t index = 0;
  double extra = 0, value = 0;
  int64_t steps = 0;
};

// Those that no option of the same item beats in both respects, the cheapest first.
std::vector<Candidate> candidates_of(const std::vector<KnapsackOption>& options) {
  std::vector<Candidate> all;
  for (size_t i = 0; i < options.size(); ++i) {
    all.push_back({i, options[i].cost, options[i].value, 0});
  }
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    return a.extra != b.extra ? a.extra < b.extra : a.value < b.value;
  });
  std::vector<Candidate> kept;
  for (const Candidate& option : all) {
    if (kept.empty() || option.value < kept.back().value) kept.push_back(option);
  }
  const double least = kept.empty() ? 0 : kept.front().extra;
  for (Candidate& option : kept) option.extra -= least;
  return kept;
}

// The largest whole number that divides every extra cost; 0 if some are no whole numbers.
int64_t common_divisor(const std::vector<std::vector<Candidate>>& items) {
  int64_t divisor = 0;
  for (const std::vector<Candidate>& item : items) {
    for (const Candidate& option : item) {
      if (option.extra != std::floor(option.extra) || option.extra > kLargestWhole) return 0;
      divisor = std::gcd(divisor, static_cast<int64_t>(option.extra));
    }
  }
  return divisor;
}

// Sets steps; returns how many there are in `room`.
int64_t cut(std::vector<std::vector<Candidate>>& items, double room) {
  double step = static_cast<double>(common_divisor(items));
  if (step == 0 || room / step > static_cast<double>(kMostSteps)) {
    step = room / static_cast<double>(kMostSteps);
  }
  for (std::vector<Candidate>& item : items) {
    for (Candidate& option : item) {
      // Beyond the room: no matter how far.
      const double steps = step > 0 ? std::ceil(option.extra / step) : option.extra > 0 ? 1 : 0;
      option.steps = static_cast<int64_t>(std::min(steps, 2.0 * kMostSteps));
    }
    std::erase_if(item, [&](const Candidate& option) { return option.extra > room; });
  }
  return step > 0 ? static_cast<int64_t>(room / step) : 0;
}

}  // namespace

std::vector<size_t> solve_knapsack(const std::vector<std::vector<KnapsackOption>>& items,
                                   double budget) {
  std::vector<std::vector<Candidate>> candidates;
  double room = budget;
  for (const std::vector<KnapsackOption>& options : items) {
    candidates.push_back(candidates_of(options));
    if (candidates.back().empty()) return {};
    room -= options[candidates.back().front().index].cost;
  }
  if (!(room >= 0)) return {};
  const int64_t steps = cut(candidates, room);
  const auto width = static_cast<size_t>(steps + 1);
  // least[s]: of the items so far, with s steps at most; which[i][s]: the option that reaches it.
  std::vector<double> least(width, 0), next(width);
  std::vector<std::vector<uint16_t>> which(items.size(), std::vector<uint16_t>(width));
  for (size_t i = 0; i < items.size(); ++i) {
    std::fill(next.begin(), next.end(), kInfinity);
    for (size_t c = 0; c < candidates[i].size(); ++c) {
      const Candidate& option = candidates[i][c];
      for (int64_t s = option.steps; s <= steps; ++s) {
        const double value = least[s - option.steps] + option.value;
        if (value < next[s]) {
          next[s] = value;
          which[i][s] = static_cast<uint16_t>(c);
        }
      }
    }
    least.swap(next);
  }
  std::vector<size_t> chosen(items.size());
  int64_t left = steps;
  for (size_t i = items.size(); i-- > 0;) {
    const Candidate& option = candidates[i][which[i][left]];
    chosen[i] = option.index;
    left -= option.steps;
  }
  return chosen;
}

}  // namespace lowbit

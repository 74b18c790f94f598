// The multiple-choice knapsack problem: one option of every item, least total value within a budget
// of cost. By dynamic programming over the budget, cut into at most 2^15 equal steps.
#pragma once

#include <cstddef>
#include <vector>

namespace lowbit {

struct KnapsackOption {
  double cost = 0;
  double value = 0;
};

// The option of each item, or nothing if even the cheapest exceed the budget. The total cost never
// exceeds it. Exact where costs are whole multiples of a number that goes into the budget at most
// 2^15 times; otherwise costs are rounded up to steps. Costs must not be negative.
std::vector<size_t> solve_knapsack(const std::vector<std::vector<KnapsackOption>>& items,
                                   double budget);

}  // namespace lowbit

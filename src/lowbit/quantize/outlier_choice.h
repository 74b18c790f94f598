// Which columns of a linear's inputs are best kept apart when the others are rounded.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowbit/base/thread_pool.h"

namespace lowbit {

// `count` columns of which the other columns' largest magnitudes, which set the step that they are
// rounded by, become small: for a small mean over tokens of (largest |x| left / rms of x)^2. Chosen
// round by round by how much each would take from a smooth stand-in of it, with norms of order 8 in
// place of maxima; or those that stand out most, by the sum of (x / rms)^4, if that is better.
// rows: [tokens][cols]. The result, in ascending order, does not depend on the pool.
std::vector<int32_t> choose_outliers(std::span<const float> rows, int64_t cols, int64_t count,
                                     ThreadPool& pool);

// What choose_outliers() makes small.
double step_left(std::span<const float> rows, int64_t cols, const std::vector<int32_t>& outliers);

}  // namespace lowbit

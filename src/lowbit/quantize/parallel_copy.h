// Copies of hidden states, by all threads: one alone does not fill the memory's bandwidth.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "lowbit/base/thread_pool.h"

namespace lowbit {

// from and to are of one size.
inline void parallel_copy(ThreadPool& pool, std::span<const float> from, std::span<float> to) {
  constexpr size_t kShare = 1 << 14;
  const auto shares = static_cast<int64_t>((from.size() + kShare - 1) / kShare);
  pool.parallel_for(shares, [&](int64_t share, int) {
    const size_t first = static_cast<size_t>(share) * kShare;
    const auto part = from.subspan(first, std::min(kShare, from.size() - first));
    std::copy(part.begin(), part.end(), to.begin() + static_cast<int64_t>(first));
  });
}

}  // namespace lowbit

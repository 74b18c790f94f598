#include "lowbit/base/thread_pool.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace lowbit {
namespace {

TEST(ThreadPool, VisitsEveryIndexOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
      pool.parallel_for(count, [&](int64_t index, int thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, pool.size());
        ++visits[static_cast<size_t>(index)];
      });
      for (const auto& visit : visits) EXPECT_EQ(visit, 1);
    }
  }
}

TEST(ThreadPool, RethrowsAndStaysUsable) {
  ThreadPool pool(3);
  EXPECT_THROW(pool.parallel_for(100,
                                 [](int64_t index, int) {
                                   if (index == 50) throw std::runtime_error("no");
                                 }),
               std::runtime_error);
  std::atomic<int> sum{0};
  pool.parallel_for(100, [&](int64_t, int) { ++sum; });
  EXPECT_EQ(sum, 100);
}

TEST(ThreadPool, RunsManyShortLoops) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 20'000; ++i) pool.parallel_for(4, [&](int64_t index, int) { sum += index; });
  EXPECT_EQ(sum, 20'000 * 6);
}

}  // namespace
}  // namespace lowbit

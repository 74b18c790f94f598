#include "lowbit/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <vector>

namespace lowbit {
namespace {

TEST(ThreadPool, RunsEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const int64_t count : {0, 1, 2, 3, 100, 10000}) {
      std::vector<std::atomic<int>> runs(count);
      pool.parallel_for(count, [&](int64_t index, int thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, threads);
        ++runs[index];
      });
      for (const std::atomic<int>& run : runs) ASSERT_EQ(run, 1);
    }
  }
}

TEST(ThreadPool, LoopsFollowEachOtherWithoutMixing) {
  ThreadPool pool(4);
  std::vector<int64_t> values(64);
  for (int round = 0; round < 5000; ++round) {
    pool.parallel_for(64, [&](int64_t index, int) { values[index] += index; });
  }
  for (int64_t index = 0; index < 64; ++index) EXPECT_EQ(values[index], 5000 * index);
}

TEST(ThreadPool, SleepingThreadsWakeUp) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> runs = 0;
    pool.parallel_for(8, [&](int64_t, int) { ++runs; });
    ASSERT_EQ(runs, 8);
  }
}

TEST(ThreadPool, RethrowsAndStaysUsable) {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(pool.parallel_for(100,
                                   [&](int64_t index, int) {
                                     if (index % 7 == 3) throw std::runtime_error("no");
                                   }),
                 std::runtime_error);
    std::atomic<int> runs = 0;
    pool.parallel_for(100, [&](int64_t, int) { ++runs; });
    EXPECT_EQ(runs, 100);
  }
}

TEST(ThreadPool, TakesAllCpusByDefault) { EXPECT_EQ(ThreadPool().size(), available_cpus()); }

}  // namespace
}  // namespace lowbit

#include "lowbit/base/thread_pool.h"

#include <sched.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/trace.h"

namespace lowbit {

namespace {

// Turns a waiting thread takes before it sleeps: about 20 us, the usual gap between two loops of
// one decode step.
constexpr int kSpins = 2000;

// The low bits of next_ while a loop is being set up.
constexpr uint64_t kClosed = 0xffffffff;

// CPUs' worth of time that the cgroup allows, or 0 if it says nothing.
int cgroup_cpus() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0) {
    return std::max(1, static_cast<int>(std::ceil(std::atof(quota.c_str()) / period)));
  }
  std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double time = 0;
  if (v1_quota >> time && v1_period >> period && time > 0 && period > 0) {
    return std::max(1, static_cast<int>(std::ceil(time / period)));
  }
  return 0;
}

}  // namespace

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = CPU_COUNT(&set);
  const int quota = cgroup_cpus();
  if (quota > 0 && quota < cpus) cpus = quota;
  return cpus > 0 ? cpus : 1;
}

ThreadPool::ThreadPool(int threads) : next_(kClosed) {
  const int total = threads > 0 ? threads : available_cpus();
  workers_.reserve(static_cast<size_t>(total - 1));
  for (int thread = 1; thread < total; ++thread) {
    workers_.emplace_back([this, thread] { work(thread); });
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  loops_.fetch_add(1);
  loops_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

// Takes the next index, if there is one. What it reads of the loop is of this loop if the exchange
// succeeds, because a new loop closes next_ before it changes anything.
bool ThreadPool::claim(int64_t& index) {
  uint64_t next = next_.load(std::memory_order_acquire);
  while ((next & kClosed) != kClosed &&
         static_cast<int64_t>(next & kClosed) < count_.load(std::memory_order_acquire)) {
    if (next_.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel)) {
      index = static_cast<int64_t>(next & kClosed);
      return true;
    }
  }
  return false;
}

// Counts the indices that nobody has taken as done.
void ThreadPool::cancel_rest() {
  int64_t index = 0;
  while (claim(index)) done_.fetch_add(1, std::memory_order_release);
}

void ThreadPool::run_share(int thread) {
  int64_t index = 0, finished = 0;
  if (!claim(index)) return;
  const Loop& loop = *loop_.load(std::memory_order_acquire);
  {
    const trace::Span span(loop.label);
    do {
      try {
        loop.call(loop.context, index, thread);
      } catch (...) {
        {
          const std::lock_guard lock(failure_mutex_);
          if (!failure_) failure_ = std::current_exception();
        }
        cancel_rest();
      }
      ++finished;
    } while (claim(index));
  }
  // The loop cannot end before this, so every index above was of this loop.
  done_.fetch_add(finished, std::memory_order_release);
}

void ThreadPool::work(int thread) {
  int seen = 0;
  while (true) {
    for (int spins = 0; loops_.load(std::memory_order_acquire) == seen && spins < kSpins; ++spins) {
      __builtin_ia32_pause();
    }
    loops_.wait(seen, std::memory_order_acquire);
    seen = loops_.load(std::memory_order_acquire);
    if (stop_) return;
    run_share(thread);
  }
}

void ThreadPool::run(const Loop& loop, int64_t count) {
  if (workers_.empty() || count <= 1) {
    const trace::Span span(count > 0 ? loop.label : nullptr);
    for (int64_t index = 0; index < count; ++index) loop.call(loop.context, index, 0);
    return;
  }
  LOWBIT_CHECK(count < static_cast<int64_t>(kClosed), "a loop of ", count, " turns");
  const uint64_t generation = (next_.load(std::memory_order_relaxed) >> 32) + 1;
  next_.store(generation << 32 | kClosed, std::memory_order_seq_cst);
  loop_.store(&loop, std::memory_order_release);
  count_.store(count, std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  failure_ = nullptr;
  next_.store((generation + 1) << 32, std::memory_order_seq_cst);
  loops_.fetch_add(1);
  loops_.notify_all();
  run_share(0);
  for (int spins = 0; done_.load(std::memory_order_acquire) != count; ++spins) {
    if (spins < kSpins) {
      __builtin_ia32_pause();
    } else {
      std::this_thread::yield();
    }
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace lowbit

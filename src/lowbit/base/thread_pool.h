// A fixed team of threads that runs one loop at a time. The caller is one of the team.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace lowbit {

class ThreadPool {
 public:
  // `threads` includes the caller; 0 means available_cpus().
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(index, thread) for every index in [0, count), thread in [0, size()). Which thread
  // gets which index is not fixed, so no result may depend on it. Returns when all are done; the
  // first exception of a body is rethrown here. Not reentrant.
  // `label` names each thread's share in traces (base/trace.h) and must stay valid.
  template <typename Body>
  void parallel_for(int64_t count, const Body& body, const char* label = nullptr) {
    run({[](const void* context, int64_t index, int thread) {
           (*static_cast<const Body*>(context))(index, thread);
         },
         &body, label},
        count);
  }

 private:
  // A body without its type: std::function would allocate for every loop.
  struct Loop {
    void (*call)(const void* context, int64_t index, int thread);
    const void* context;
    const char* label;
  };

  void run(const Loop& loop, int64_t count);
  void work(int thread);
  void run_share(int thread);
  bool claim(int64_t& index);
  void cancel_rest();

  std::vector<std::thread> workers_;
  // Generation of the loop in the high, next index in the low 32 bits. A loop is over when all its
  // indices are done, so a thread that the system has put aside holds nobody up: it finds the
  // generation changed.
  std::atomic<uint64_t> next_;
  std::atomic<int64_t> count_{0};
  std::atomic<const Loop*> loop_{nullptr};
  std::atomic<int64_t> done_{0};
  std::atomic<int> loops_{0};  // started so far; threads sleep on it
  std::atomic<bool> stop_{false};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
};

// Cores that this process may use: the affinity mask, capped by the cgroup's quota.
int available_cpus();

}  // namespace lowbit

// Preparer: a thread that reads requests (JSON, templates, tokenizing, grammars), so that the I/O
// thread never waits for one of them.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace lowbit::server {

class Preparer {
 public:
  // At most this many tasks wait, and at most so many bytes of request bodies.
  Preparer(size_t max_tasks, size_t max_bytes);
  ~Preparer();  // drops what waits
  Preparer(const Preparer&) = delete;
  Preparer& operator=(const Preparer&) = delete;

  // False if there is no room. Tasks must not throw.
  bool push(size_t bytes, std::function<void()> task);
  size_t waiting() const;  // the one at work included

 private:
  void work();

  const size_t max_tasks_, max_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<size_t, std::function<void()>>> tasks_;
  size_t bytes_ = 0;
  bool busy_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace lowbit::server

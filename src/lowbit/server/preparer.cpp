#include "lowbit/server/preparer.h"

namespace lowbit::server {

Preparer::Preparer(size_t max_tasks, size_t max_bytes)
    : max_tasks_(max_tasks), max_bytes_(max_bytes), thread_([this] { work(); }) {}

Preparer::~Preparer() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

bool Preparer::push(size_t bytes, std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (tasks_.size() >= max_tasks_ || (bytes_ > 0 && bytes_ + bytes > max_bytes_)) return false;
    bytes_ += bytes;
    tasks_.emplace_back(bytes, std::move(task));
  }
  changed_.notify_one();
  return true;
}

size_t Preparer::waiting() const {
  const std::lock_guard lock(mutex_);
  return tasks_.size() + (busy_ ? 1 : 0);
}

void Preparer::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || !tasks_.empty(); });
    if (stop_) return;
    const size_t bytes = tasks_.front().first;
    std::function<void()> task = std::move(tasks_.front().second);
    tasks_.pop_front();
    busy_ = true;
    lock.unlock();
    task();
    task = nullptr;  // what it holds goes before it counts as done
    lock.lock();
    busy_ = false;
    bytes_ -= bytes;
  }
}

}  // namespace lowbit::server

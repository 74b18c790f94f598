// Bounds what one rendering may cost, so that a hostile template ends in an error: steps (also of
// work inside built-in functions), live memory, recursion.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lowbit::jinja {

class Meter {
 public:
  Meter();   // becomes the calling thread's meter
  ~Meter();  // all values made meanwhile must be gone
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

  // The meter of the rendering that runs on this thread; null outside of one.
  static Meter* current();

  void step(uint64_t count = 1) {
    steps_ += count;
    if (steps_ > kStepLimit) exceeded_steps();
  }
  void enter() {
    if (++depth_ > kDepthLimit) exceeded_depth();
  }
  void leave() { --depth_; }
  void allocate(size_t bytes) {
    live_bytes_ += bytes;
    if (live_bytes_ > kMemoryLimit) exceeded_memory(bytes);
  }
  void release(size_t bytes) { live_bytes_ -= bytes; }

 private:
  [[noreturn]] void exceeded_steps();
  [[noreturn]] void exceeded_depth();
  [[noreturn]] void exceeded_memory(size_t bytes);

  static const uint64_t kStepLimit;
  static const int kDepthLimit;
  static const size_t kMemoryLimit;

  uint64_t steps_ = 0;
  int depth_ = 0;
  size_t live_bytes_ = 0;
  Meter* outer_;
};

// Counts `bytes` read or written by a built-in function.
inline void charge_bytes(size_t bytes) {
  if (Meter* meter = Meter::current()) meter->step(bytes / 256);
}

// Counts `count` elements visited by a built-in function.
inline void charge_elements(size_t count) {
  if (Meter* meter = Meter::current()) meter->step(count / 16);
}

// One level of recursion, for its scope.
class Recursion {
 public:
  Recursion() : meter_(Meter::current()) {
    if (meter_) meter_->enter();
  }
  ~Recursion() {
    if (meter_) meter_->leave();
  }
  Recursion(const Recursion&) = delete;
  Recursion& operator=(const Recursion&) = delete;

 private:
  Meter* meter_;
};

// Memory that an object holds, counted while it lives. Throws before the object is made.
class MemoryCharge {
 public:
  explicit MemoryCharge(size_t bytes) : meter_(Meter::current()), bytes_(bytes) {
    if (meter_) meter_->allocate(bytes);
  }
  ~MemoryCharge() {
    if (meter_) meter_->release(bytes_);
  }
  MemoryCharge(const MemoryCharge&) = delete;
  MemoryCharge& operator=(const MemoryCharge&) = delete;

  void grow(size_t bytes) {
    bytes_ += bytes;
    if (meter_) meter_->allocate(bytes);
  }

 private:
  Meter* meter_;
  size_t bytes_;
};

}  // namespace lowbit::jinja

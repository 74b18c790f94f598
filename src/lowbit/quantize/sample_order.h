// SampleOrder: which calibration samples form each batch of a training run. Every sample comes once
// before any comes again; the same on every machine.
#pragma once

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace lowbit {

class SampleOrder {
 public:
  SampleOrder(int64_t samples, uint64_t seed) : order_(static_cast<size_t>(samples)), state_(seed) {
    std::iota(order_.begin(), order_.end(), 0);
    next_ = order_.size();
  }

  std::vector<int64_t> next(int64_t count) {
    std::vector<int64_t> batch;
    for (int64_t i = 0; i < count; ++i) {
      if (next_ == order_.size()) shuffle();
      batch.push_back(order_[next_++]);
    }
    return batch;
  }

 private:
  // Fisher and Yates.
  void shuffle() {
    next_ = 0;
    for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random() % i]);
  }

  uint64_t random() {  // splitmix64
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  std::vector<int64_t> order_;
  uint64_t state_;
  size_t next_ = 0;
};

}  // namespace lowbit

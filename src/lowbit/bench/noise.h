// Noise: random numbers for inputs and weights that are only timed.
#pragma once

#include <cstdint>

namespace lowbit {

// Marsaglia's xorshift64*: fast, and good enough here.
class Noise {
 public:
  explicit Noise(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 2685821657736338717u;
  }
  float uniform() { return static_cast<float>(next() >> 40) * 0x1p-24f; }  // [0, 1)

 private:
  uint64_t state_;
};

}  // namespace lowbit

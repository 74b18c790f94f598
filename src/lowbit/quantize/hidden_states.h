// HiddenStates: what enters (or leaves) a decoder block for every calibration sample, in memory or,
// where that is too little, in a file that the system pages in and out.
#pragma once

#include <cstdint>
#include <span>

#include "lowbit/base/file.h"

namespace lowbit {

class HiddenStates {
 public:
  // Zeros. With `spill` not empty they are in that file, which is deleted at once, so that nothing
  // of it is left however the process ends. Throws kOutOfMemory or kIo saying how much was needed.
  HiddenStates(int64_t samples, int64_t tokens, int64_t hidden_size, const fs::path& spill = {});
  ~HiddenStates();
  HiddenStates(const HiddenStates&) = delete;
  HiddenStates& operator=(const HiddenStates&) = delete;

  int64_t samples() const { return samples_; }
  int64_t tokens() const { return tokens_; }  // of each sample
  int64_t hidden_size() const { return hidden_size_; }
  int64_t bytes() const { return samples_ * tokens_ * hidden_size_ * 4; }

  // [tokens][hidden_size]
  std::span<float> sample(int64_t index) {
    return {data_ + index * tokens_ * hidden_size_, static_cast<size_t>(tokens_ * hidden_size_)};
  }
  std::span<const float> sample(int64_t index) const {
    return {data_ + index * tokens_ * hidden_size_, static_cast<size_t>(tokens_ * hidden_size_)};
  }

 private:
  int64_t samples_, tokens_, hidden_size_;
  float* data_ = nullptr;  // [samples][tokens][hidden_size]
};

}  // namespace lowbit

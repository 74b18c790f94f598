#include "lowbit/runtime/cpu/arena.h"

#include <algorithm>

namespace lowbit::cpu {

namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kChunk = int64_t{64} << 20;  // untouched pages of a chunk cost nothing
constexpr int64_t kAlignment = 64;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

Tensor WeightArena::allocate(int64_t bytes) {
  const int64_t needed = round_up(std::max<int64_t>(bytes, 1), kAlignment);
  if (used_ + needed > size_) {
    size_ = std::max(kChunk, round_up(needed, kHugePage));
    chunk_ = allocate_host(1, size_, DType::kU8, Pages::kHuge);
    used_ = 0;
  }
  Tensor tensor;
  tensor.storage = chunk_.storage;
  tensor.data = chunk_.as<uint8_t>() + used_;
  tensor.rows = 1;
  tensor.cols = bytes;
  tensor.dtype = DType::kU8;
  used_ += needed;
  return tensor;
}

}  // namespace lowbit::cpu

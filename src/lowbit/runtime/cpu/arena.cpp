#include "lowbit/runtime/cpu/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "lowbit/base/check.h"

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
    void* memory = std::aligned_alloc(kHugePage, static_cast<size_t>(size_));
    LOWBIT_CHECK_KIND(memory != nullptr, ErrorKind::kOutOfMemory, "out of memory: ", size_ >> 20,
                      " MiB for weights");
    madvise(memory, static_cast<size_t>(size_), MADV_HUGEPAGE);  // a wish: small pages work too
    chunk_ = std::shared_ptr<uint8_t>(static_cast<uint8_t*>(memory), std::free);
    used_ = 0;
  }
  Tensor tensor;
  tensor.storage = chunk_;
  tensor.data = chunk_.get() + used_;
  tensor.rows = 1;
  tensor.cols = bytes;
  tensor.dtype = DType::kU8;
  used_ += needed;
  return tensor;
}

}  // namespace lowbit::cpu

// WeightArena: memory for packed weights in huge pages. A decode step reads every weight once, in
// order; with 4 KiB pages the prefetchers stop at every page and half of the time goes into waiting
// for translations.
#pragma once

#include <cstdint>
#include <memory>

#include "lowbit/tensor/tensor.h"

namespace lowbit::cpu {

class WeightArena {
 public:
  // Uninitialized bytes, 64-byte aligned, next to those of the call before. They live as long as
  // the tensor. Throws kOutOfMemory. Not for several threads at once.
  Tensor allocate(int64_t bytes);

 private:
  std::shared_ptr<uint8_t> chunk_;
  int64_t used_ = 0;
  int64_t size_ = 0;
};

}  // namespace lowbit::cpu

// KvCache: keys and values of past tokens, in blocks of kBlockTokens that sequences own through
// block tables. Who owns which block is the caller's affair.
#pragma once

#include <cstdint>
#include <memory>

#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/tensor.h"

namespace lowbit {

constexpr int64_t kBlockTokens = 64;

struct KvCacheSpec {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t blocks = 0;         // per layer; shared by all sequences
  DType dtype = DType::kF16;  // kF16 or kF32

  int64_t bytes() const {
    return 2 * layers * kv_heads * head_dim * blocks * kBlockTokens * size_of(dtype);
  }
};

// Layout of `data`: [layers][2: k, v][blocks][kv_heads][kBlockTokens][head_dim]. Keys are stored
// after rotation.
struct KvCache {
  KvCacheSpec spec;
  Tensor data;

  // First element of one block of one head. which: 0 keys, 1 values.
  int64_t offset(int64_t layer, int which, int64_t block, int64_t head) const {
    const int64_t head_elems = kBlockTokens * spec.head_dim;
    return (((layer * 2 + which) * spec.blocks + block) * spec.kv_heads + head) * head_elems;
  }
};

}  // namespace lowbit

// KvCache: keys and values of past tokens, in blocks of kBlockTokens that sequences own through
// block tables. Who owns which block is the caller's affair.
#pragma once

#include <cstdint>
#include <memory>

#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/tensor.h"

namespace lowbit {

constexpr int64_t kBlockTokens = 64;

// As --kv-cache-dtype says it: "fp32", "fp16", "int8".
constexpr const char* kv_name_of(DType type) {
  return type == DType::kF32   ? "fp32"
         : type == DType::kF16 ? "fp16"
         : type == DType::kI8  ? "int8"
                               : name_of(type);
}

struct KvCacheSpec {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t blocks = 0;  // per layer; shared by all sequences
  // kF32, kF16, or kI8: each key and each value of a head as round_inputs() rounds it
  // (tensor/input_codes.h), with its scale in fp32. Backends refuse what they do not have.
  DType dtype = DType::kF16;

  // Of a head's keys, or values, in one block: a page.
  int64_t page_bytes() const {
    const int64_t scale = dtype == DType::kI8 ? size_of(DType::kF32) : 0;
    return kBlockTokens * (head_dim * size_of(dtype) + scale);
  }
  int64_t token_bytes() const { return 2 * layers * kv_heads * page_bytes() / kBlockTokens; }
  int64_t pages() const { return 2 * layers * blocks * kv_heads; }
  int64_t bytes() const { return pages() * page_bytes(); }
};

// Layout of `data`: [layers][2: k, v][blocks][kv_heads] pages. A page is [kBlockTokens][head_dim],
// and of kI8 also the scales [kBlockTokens] behind. Keys are stored after rotation.
struct KvCache {
  KvCacheSpec spec;
  Tensor data;  // bytes: [pages][page_bytes]

  // which: 0 keys, 1 values.
  uint8_t* page(int64_t layer, int which, int64_t block, int64_t head) const {
    const int64_t index = ((layer * 2 + which) * spec.blocks + block) * spec.kv_heads + head;
    return data.as<uint8_t>() + index * spec.page_bytes();
  }
};

}  // namespace lowbit

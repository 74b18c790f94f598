// KvCache: keys and values of past tokens, in blocks of kBlockTokens that sequences own through
// block tables. Who owns which block is the caller's affair.
#pragma once

#include <cstdint>
#include <memory>

#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/tensor.h"

namespace lowbit {

constexpr int64_t kBlockTokens = 64;

// As --kv-cache-dtype says it: "fp32", "fp16", "fp8", "int8", "int4".
constexpr const char* kv_name_of(DType type) {
  return type == DType::kF32    ? "fp32"
         : type == DType::kF16  ? "fp16"
         : type == DType::kE4M3 ? "fp8"
         : type == DType::kI8   ? "int8"
         : type == DType::kI4   ? "int4"
                                : name_of(type);
}

// Dimensions of a head that share a scale and an offset in kI4.
constexpr int64_t kKvGroup = 64;

struct KvCacheSpec {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t blocks = 0;  // per layer; shared by all sequences
  // kF32, kF16, or a key or value of a head in few bits: kI8 as round_inputs() does it
  // (tensor/input_codes.h), kE4M3 and kI4 as kv_codes.h. Backends refuse what they do not have.
  DType dtype = DType::kF16;

  // Of a key or value of a head: its codes, and what they are multiplied by.
  int64_t row_bytes() const {
    return dtype == DType::kI4 ? (head_dim + 1) / 2 : head_dim * size_of(dtype);
  }
  int64_t scale_bytes() const {
    return dtype == DType::kI8     ? size_of(DType::kF32)
           : dtype == DType::kE4M3 ? size_of(DType::kF16)
           : dtype == DType::kI4   ? groups() * 2 * size_of(DType::kF16)
                                   : 0;
  }
  int64_t groups() const { return (head_dim + kKvGroup - 1) / kKvGroup; }
  // Of a head's keys, or values, in one block: a page.
  int64_t page_bytes() const { return kBlockTokens * (row_bytes() + scale_bytes()); }
  int64_t token_bytes() const { return 2 * layers * kv_heads * page_bytes() / kBlockTokens; }
  int64_t pages() const { return 2 * layers * blocks * kv_heads; }
  int64_t bytes() const { return pages() * page_bytes(); }
};

// Layout of `data`: [layers][2: k, v][blocks][kv_heads] pages. A page is [kBlockTokens][row_bytes];
// behind it the scales, [kBlockTokens] floats (kI8) or halves (kE4M3), or of kI4
// [groups][kBlockTokens] pairs of scale and offset, halves. Codes of 4 bits: even dimensions in the
// lower bits. (cuda: other places for codes, kv_places.cuh.) Keys are stored after rotation
// (and of kI4 after mix_dimensions(), kv_codes.h).
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

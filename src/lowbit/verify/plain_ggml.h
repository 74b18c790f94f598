// ggml's blocks, one element at a time, read a second time (see plain_weight.h).
#pragma once

#include <cstdint>
#include <span>

namespace lowbit {

struct PlainGgmlType {
  uint32_t id;             // ggml's
  int64_t weights, bytes;  // of a block
  float (*element)(const uint8_t* block, int64_t index);
};
std::span<const PlainGgmlType> plain_ggml_types();

}  // namespace lowbit

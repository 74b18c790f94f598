// BlockWeights: one decoder block in fp32, in Hugging Face's terms, on its way through a method.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/runtime/backend.h"

namespace lowbit {

// The linears of a block, in the order of block_linears() (model/model.h).
enum BlockLinear { kQ, kK, kV, kO, kGate, kUp, kDown };
constexpr int kBlockLinears = 7;

// Linears that read the same input: {q, k, v}, {o}, {gate, up}, {down}.
enum LinearGroup { kAttentionInput, kOutputInput, kMlpInput, kDownInput };
constexpr int kLinearGroups = 4;
constexpr LinearGroup group_of(int linear) {
  return linear <= kV    ? kAttentionInput
         : linear == kO  ? kOutputInput
         : linear <= kUp ? kMlpInput
                         : kDownInput;
}

// Array: floats, on the host or on a device.
template <typename Array>
struct BasicBlockWeights {
  struct Linear {
    std::string name;  // "model.layers.0.self_attn.q_proj"
    int64_t rows = 0;
    int64_t cols = 0;
    Array weight;  // [rows][cols]
    Array bias;    // [rows] or empty
  };
  std::array<Linear, kBlockLinears> linears;
  Array input_norm, post_attention_norm;  // [hidden]
  Array q_norm, k_norm;                   // [head_dim] or empty
  AttentionShape attention;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  float eps = 0;
};
using BlockWeights = BasicBlockWeights<std::vector<float>>;

}  // namespace lowbit

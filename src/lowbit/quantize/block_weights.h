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

struct BlockWeights {
  struct Linear {
    std::string name;  // "model.layers.0.self_attn.q_proj"
    int64_t rows = 0;
    int64_t cols = 0;
    std::vector<float> weight;  // [rows][cols]
    std::vector<float> bias;    // [rows] or empty
  };
  std::array<Linear, kBlockLinears> linears;
  std::vector<float> input_norm, post_attention_norm;  // [hidden]
  std::vector<float> q_norm, k_norm;                   // [head_dim] or empty
  AttentionShape attention;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  float eps = 0;
};

}  // namespace lowbit

// BlockWeights: one decoder block in fp32, in Hugging Face's terms, on its way through a method.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/model/rope.h"
#include "lowbit/runtime/backend.h"
#include "lowbit/tensor/scheme.h"

namespace lowbit {

// A block's linears in the order in which their inputs arise: {q,k,v}, {o}, {gate,up}, {down}.
// Those of one group read the same input.
enum BlockSlot { kQProj, kKProj, kVProj, kOProj, kGateProj, kUpProj, kDownProj };
inline constexpr int kBlockLinears = 7;
inline constexpr int kBlockGroups = 4;
inline constexpr std::array<int, kBlockGroups + 1> kGroupBegin = {kQProj, kOProj, kGateProj,
                                                                  kDownProj, kBlockLinears};

struct BlockLinear {
  std::string name;  // "model.layers.0.self_attn.q_proj", for errors
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> weight;  // [rows][cols]
  std::vector<float> bias;    // [rows] or empty
  // What is to be made of it, for_shape() applied. Dense: it stays in 16 bits.
  QuantScheme scheme = dense_scheme(Code::kF16);
};

struct BlockWeights {
  AttentionShape shape;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  float rms_norm_eps = 1e-6f;
  std::vector<float> input_layernorm, post_attention_layernorm;  // [hidden_size]
  std::vector<float> q_norm, k_norm;                             // [head_dim], or empty
  std::array<BlockLinear, kBlockLinears> linears;                // by BlockSlot
  std::shared_ptr<const RopeTables> rope;  // at least as many positions as a sample has tokens
};

}  // namespace lowbit

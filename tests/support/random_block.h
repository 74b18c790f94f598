// A decoder block with random weights.
#pragma once

#include <vector>

#include "lowbit/quantize/block_weights.h"
#include "support/random.h"

namespace lowbit::test {

struct BlockShape {
  int64_t hidden = 24, intermediate = 40, heads = 4, kv_heads = 2, head_dim = 8, window = 0;
  bool bias = false, qk_norm = false;
  float scale = 0.3f;  // of weights
};

inline std::vector<float> random_values(int64_t count, uint64_t seed, float scale,
                                        float offset = 0) {
  std::vector<float> values = gaussian(static_cast<size_t>(count), seed);
  for (float& value : values) value = offset + scale * value;
  return values;
}

inline BlockWeights random_block(const BlockShape& shape) {
  BlockWeights block;
  const int64_t q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
  const int64_t sizes[kBlockLinears][2] = {{q, shape.hidden},
                                           {kv, shape.hidden},
                                           {kv, shape.hidden},
                                           {shape.hidden, q},
                                           {shape.intermediate, shape.hidden},
                                           {shape.intermediate, shape.hidden},
                                           {shape.hidden, shape.intermediate}};
  for (int i = 0; i < kBlockLinears; ++i) {
    const auto [rows, cols] = sizes[i];
    BlockWeights::Linear& linear = block.linears[static_cast<size_t>(i)];
    linear = {"linear", rows, cols, random_values(rows * cols, 10 + i, shape.scale), {}};
    if (shape.bias) linear.bias = random_values(rows, 20 + i, 0.3f);
  }
  block.input_norm = random_values(shape.hidden, 1, 0.2f, 1.f);
  block.post_attention_norm = random_values(shape.hidden, 2, 0.2f, 1.f);
  if (shape.qk_norm) {
    block.q_norm = random_values(shape.head_dim, 3, 0.2f, 1.f);
    block.k_norm = random_values(shape.head_dim, 4, 0.2f, 1.f);
  }
  block.attention = {shape.heads, shape.kv_heads, shape.head_dim, shape.window};
  block.hidden = shape.hidden;
  block.intermediate = shape.intermediate;
  block.eps = 1e-5f;
  return block;
}

}  // namespace lowbit::test

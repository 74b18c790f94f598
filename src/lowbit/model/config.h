// ModelConfig: the shape of a Llama-class decoder, in Hugging Face's names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/model/rope.h"
#include "lowbit/runtime/kv_cache.h"

namespace lowbit {

struct ModelConfig {
  std::string model_type;  // "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;
  int64_t sliding_window = 0;          // keys that a query sees, itself included; 0: all
  std::vector<bool> sliding_layers;    // [num_hidden_layers] if there is a window: who uses it
  std::vector<int32_t> eos_token_ids;  // config and generation_config together
  int32_t bos_token_id = -1;           // -1: none

  int64_t parameters() const;  // embedding, blocks, norms, head (once if tied)
  KvCacheSpec kv_cache(int64_t blocks, DType dtype) const {
    return {num_hidden_layers, num_key_value_heads, head_dim, blocks, dtype};
  }
  // Window of one block; 0: all keys.
  int64_t window(int64_t block) const {
    return sliding_window > 0 && sliding_layers[static_cast<size_t>(block)] ? sliding_window : 0;
  }
};

// Reads config.json (and generation_config.json, may be null) of any family in models.cpp. Accepts
// rope_theta + rope_scaling and transformers 5's rope_parameters. Throws kUnsupported naming an
// unknown architecture or rope type with those there are, kCorruptFile on impossible values.
ModelConfig parse_model_config(const Json& config, const Json& generation_config,
                               const std::string& origin);

}  // namespace lowbit

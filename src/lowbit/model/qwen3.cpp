// Qwen3, dense (arXiv:2505.09388): Llama with RMSNorm over each head of q and k.
#include "lowbit/model/family.h"

namespace lowbit {

void configure_qwen3(const ConfigReader& config, ModelConfig& model) {
  const bool attention_bias = config.boolean("attention_bias", false);
  model.qkv_bias = attention_bias;
  model.o_bias = attention_bias;
  model.qk_norm = true;
  configure_window_layers(config, model);
  if (!config.contains("head_dim")) model.head_dim = 128;
  if (!config.contains("num_key_value_heads")) model.num_key_value_heads = 32;
  if (!config.contains("max_position_embeddings")) model.max_position_embeddings = 32768;
}

}  // namespace lowbit

// Llama 1, 2, 3, 3.1, 3.2 and what shares their shape (SmolLM2, TinyLlama).
#include "lowbit/model/family.h"

namespace lowbit {

void configure_llama(const ConfigReader& config, ModelConfig& model) {
  const bool attention_bias = config.boolean("attention_bias", false);
  model.qkv_bias = attention_bias;
  model.o_bias = attention_bias;
  model.mlp_bias = config.boolean("mlp_bias", false);
  if (!config.contains("max_position_embeddings")) model.max_position_embeddings = 2048;
  if (!config.contains("bos_token_id")) model.bos_token_id = 1;
  if (!config.contains("eos_token_id")) model.eos_token_ids = {2};
}

}  // namespace lowbit

// Mistral 7B (arXiv:2310.06825): Llama with a sliding window in every block (v0.1) or none.
#include "lowbit/base/limits.h"
#include "lowbit/model/family.h"

namespace lowbit {

void configure_mistral(const ConfigReader& config, ModelConfig& model) {
  if (!config.contains("sliding_window")) {
    model.sliding_window = 4096;
  } else {
    model.sliding_window = config.integer("sliding_window", 1, limits::kContext, 0);
  }
  model.sliding_layers.assign(static_cast<size_t>(model.num_hidden_layers), true);
  if (!config.contains("num_key_value_heads")) model.num_key_value_heads = 8;
  if (!config.contains("max_position_embeddings")) model.max_position_embeddings = 131072;
  if (!config.contains("bos_token_id")) model.bos_token_id = 1;
  if (!config.contains("eos_token_id")) model.eos_token_ids = {2};
}

}  // namespace lowbit

// Qwen2 and Qwen2.5 (arXiv:2407.10671): Llama with biases on q, k and v.
#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/model/family.h"

namespace lowbit {

void configure_qwen2(const ConfigReader& config, ModelConfig& model) {
  model.qkv_bias = true;
  configure_window_layers(config, model);
  if (!config.contains("num_key_value_heads")) model.num_key_value_heads = 32;
  if (!config.contains("max_position_embeddings")) model.max_position_embeddings = 32768;
}

void configure_window_layers(const ConfigReader& config, ModelConfig& model) {
  if (!config.boolean("use_sliding_window", false)) return;
  const bool absent = !config.contains("sliding_window");
  model.sliding_window = config.integer("sliding_window", 1, limits::kContext, absent ? 4096 : 0);
  model.sliding_layers.clear();
  if (!config.has_value("layer_types")) {
    const int64_t first = config.integer("max_window_layers", 0, limits::kLayers, 28);
    for (int64_t i = 0; i < model.num_hidden_layers; ++i)
      model.sliding_layers.push_back(i >= first);
    return;
  }
  const Json& types = config.object()["layer_types"];
  LOWBIT_CHECK_KIND(
      types.is_array() && static_cast<int64_t>(types.size()) == model.num_hidden_layers,
      ErrorKind::kCorruptFile, config.origin(), ": \"layer_types\" must list one type for each of ",
      model.num_hidden_layers, " layers");
  for (const Json& type : types) {
    LOWBIT_CHECK_KIND(type == "sliding_attention" || type == "full_attention",
                      ErrorKind::kUnsupported, config.origin(), ": layer type ", dump_json(type),
                      " is not supported; supported are full_attention, sliding_attention");
    model.sliding_layers.push_back(type == "sliding_attention");
  }
}

}  // namespace lowbit

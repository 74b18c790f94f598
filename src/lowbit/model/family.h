// The table of model families. All are Llama's decoder; a family says where it differs.
#pragma once

#include <span>

#include "lowbit/model/config.h"
#include "lowbit/model/config_reader.h"

namespace lowbit {

struct ModelFamily {
  const char* model_type;    // "llama"
  const char* architecture;  // "LlamaForCausalLM"
  // Sets what is the family's own: biases, norms, windows, and the defaults that transformers gives
  // to members that are absent. All members common to the families are read before.
  void (*configure)(const ConfigReader& config, ModelConfig& model);
};

std::span<const ModelFamily> model_families();

// Qwen's windows: used only with use_sliding_window, by the blocks that layer_types names or else
// by those from max_window_layers on.
void configure_window_layers(const ConfigReader& config, ModelConfig& model);

}  // namespace lowbit

#include "lowbit/model/family.h"

namespace lowbit {

// Each in the file of its family.
void configure_llama(const ConfigReader& config, ModelConfig& model);
void configure_mistral(const ConfigReader& config, ModelConfig& model);
void configure_qwen2(const ConfigReader& config, ModelConfig& model);
void configure_qwen3(const ConfigReader& config, ModelConfig& model);

namespace {

constexpr ModelFamily kFamilies[] = {
    {"llama", "LlamaForCausalLM", configure_llama},
    {"mistral", "MistralForCausalLM", configure_mistral},
    {"qwen2", "Qwen2ForCausalLM", configure_qwen2},
    {"qwen3", "Qwen3ForCausalLM", configure_qwen3},
};

}  // namespace

std::span<const ModelFamily> model_families() { return kFamilies; }

}  // namespace lowbit

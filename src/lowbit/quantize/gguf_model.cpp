#include "lowbit/quantize/gguf_model.h"

#include <cmath>
#include <numbers>

#include "lowbit/base/check.h"

namespace lowbit {

namespace {

GgufValue u32(int64_t value) { return gguf_u32(static_cast<uint32_t>(value)); }
GgufValue f32(double value) { return gguf_f32(static_cast<float>(value)); }

}  // namespace

std::string gguf_architecture(const ModelConfig& config) {
  if (config.model_type == "mistral") return "llama";
  LOWBIT_CHECK_KIND(
      config.model_type == "llama" || config.model_type == "qwen2" || config.model_type == "qwen3",
      ErrorKind::kUnsupported, "no GGUF architecture for models of type ", config.model_type,
      "; there are: llama, mistral, qwen2, qwen3");
  return config.model_type;
}

GgufPairs gguf_model_metadata(const ModelConfig& config, const std::string& name,
                              uint32_t file_type) {
  const std::string arch = gguf_architecture(config);
  GgufPairs pairs = {
      {"general.architecture", gguf_string(arch)},
      {"general.type", gguf_string("model")},
      {"general.name", gguf_string(name)},
      {"general.file_type", gguf_u32(file_type)},
      {"general.quantization_version", gguf_u32(2)},
      {arch + ".vocab_size", u32(config.vocab_size)},
      {arch + ".context_length", u32(config.max_position_embeddings)},
      {arch + ".embedding_length", u32(config.hidden_size)},
      {arch + ".block_count", u32(config.num_hidden_layers)},
      {arch + ".feed_forward_length", u32(config.intermediate_size)},
      {arch + ".attention.head_count", u32(config.num_attention_heads)},
      {arch + ".attention.head_count_kv", u32(config.num_key_value_heads)},
      {arch + ".attention.layer_norm_rms_epsilon", f32(config.rms_norm_eps)},
      {arch + ".attention.key_length", u32(config.head_dim)},
      {arch + ".attention.value_length", u32(config.head_dim)},
      {arch + ".rope.dimension_count", u32(config.head_dim)},
      {arch + ".rope.freq_base", f32(config.rope.theta)},
  };
  if (config.rope.type == RopeType::kLinear) {
    pairs.emplace_back(arch + ".rope.scaling.type", gguf_string("linear"));
    pairs.emplace_back(arch + ".rope.scaling.factor", f32(config.rope.factor));
  }
  if (config.sliding_window > 0) {
    pairs.emplace_back(arch + ".attention.sliding_window", u32(config.sliding_window));
  }
  return pairs;
}

std::vector<float> gguf_rope_factors(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  if (rope.type == RopeType::kFactors) return {rope.factors.begin(), rope.factors.end()};
  if (rope.type != RopeType::kLlama3) return {};
  const double context = static_cast<double>(rope.original_max_position_embeddings);
  std::vector<float> factors;
  for (int64_t i = 0; i < config.head_dim / 2; ++i) {
    const double frequency = std::pow(rope.theta, -2.0 * i / config.head_dim);
    const double wavelength = 2 * std::numbers::pi / frequency;
    double factor = 1;
    if (wavelength > context / rope.low_freq_factor) {
      factor = rope.factor;
    } else if (wavelength >= context / rope.high_freq_factor) {
      const double smooth = (context / wavelength - rope.low_freq_factor) /
                            (rope.high_freq_factor - rope.low_freq_factor);
      factor = 1 / ((1 - smooth) / rope.factor + smooth);
    }
    factors.push_back(static_cast<float>(factor));
  }
  return factors;
}

}  // namespace lowbit

#include "lowbit/quantize/hf_config.h"

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/quantize/fault.h"

namespace lowbit {

namespace {

constexpr const char* kCopied[] = {
    "generation_config.json", "tokenizer.json",      "tokenizer_config.json",
    "tokenizer.model",        "vocab.json",          "merges.txt",
    "added_tokens.json",      "chat_template.jinja", "special_tokens_map.json",
    "chat_template.json"};

// GGUF keeps only the factors of Llama 3's rope scaling, not the four numbers they came from. All
// Llama 3.1, 3.2 and 3.3 models share three of those, and the fourth is the largest factor.
Json llama3_scaling(const ModelConfig& config) {
  ModelConfig guess = config;
  guess.rope.type = RopeType::kLlama3;
  guess.rope.factor = config.rope.factors.back();
  guess.rope.low_freq_factor = 1;
  guess.rope.high_freq_factor = 4;
  guess.rope.original_max_position_embeddings = 8192;
  const std::vector<float> have = rope_inv_freq(config), made = rope_inv_freq(guess);
  for (size_t i = 0; i < have.size(); ++i) {
    LOWBIT_CHECK_KIND(std::fabs(made[i] - have[i]) <= 1e-4f * have[i], ErrorKind::kUnsupported,
                      "the model's rope factors are not those of Llama 3 scaling, so config.json ",
                      "cannot name them; --format gguf can keep them");
  }
  return {{"rope_type", "llama3"},
          {"factor", guess.rope.factor},
          {"low_freq_factor", 1.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 8192}};
}

}  // namespace

Json hf_config(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& dtype) {
  Json document = checkpoint.config();
  document.erase("quantization_config");
  document.erase("compression_config");
  const char* name = dtype == "BF16" ? "bfloat16" : "float16";
  document["torch_dtype"] = name;
  if (document.contains("dtype")) document["dtype"] = name;
  if (config.rope.type == RopeType::kFactors) document["rope_scaling"] = llama3_scaling(config);
  return document;
}

void copy_tokenizer(const Checkpoint& checkpoint, const fs::path& result) {
  const fs::path from = checkpoint.path();
  if (fs::is_directory(from)) {
    for (const char* name : kCopied) {
      fault_point("copy");
      if (!fs::exists(from / name)) continue;
      write_file_atomic(result / name, read_file(from / name, limits::kJsonBytes));
    }
    return;
  }
  const TokenizerSpec spec = checkpoint.tokenizer();
  fault_point("tokenizer");
  write_file_atomic(result / "tokenizer.json", tokenizer_json(spec));
  write_file_atomic(result / "tokenizer_config.json", tokenizer_config_json(spec));
  if (!checkpoint.generation_config().is_null()) {
    write_file_atomic(result / "generation_config.json",
                      dump_json(checkpoint.generation_config(), 2) + "\n");
  }
}

}  // namespace lowbit

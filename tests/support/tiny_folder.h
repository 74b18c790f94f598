// A tiny model as a Hugging Face folder on disk: config, weights, tokenizer.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "lowbit/checkpoint/safetensors.h"
#include "lowbit/model/model.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tokenizer/byte_level.h"
#include "support/files.h"
#include "support/tiny_model.h"

namespace lowbit::test {

inline Json tiny_folder_config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 264},
          {"hidden_size", 128},
          {"intermediate_size", 160},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 1},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"tie_word_embeddings", false},
          {"bos_token_id", 256},
          {"eos_token_id", 257},
          {"torch_dtype", "float16"}};
}

// A smaller one, for what learns or measures.
inline Json tinier_folder_config() {
  Json config = tiny_folder_config();
  config["hidden_size"] = 64;
  config["intermediate_size"] = 96;
  config["num_attention_heads"] = 2;
  return config;
}

// The 256 bytes, <s>, </s> and a few merges' worth of padding; GPT-2's pre-tokenizer.
inline std::string tiny_tokenizer_json(int64_t vocab_size) {
  TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    spec.vocab.emplace_back();
    append_byte_level(std::string(1, static_cast<char>(byte)), spec.vocab.back());
  }
  spec.vocab.push_back("<s>");
  spec.vocab.push_back("</s>");
  for (int64_t id = 258; id < vocab_size; ++id)
    spec.vocab.push_back("<unused" + std::to_string(id) + ">");
  for (int32_t id = 256; id < vocab_size; ++id) {
    AddedToken token;
    token.id = id;
    token.content = spec.vocab[id];
    spec.added_tokens.push_back(token);
  }
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  spec.pre_tokenizer = byte_level;
  spec.decoder = byte_level;
  return tokenizer_json(spec);
}

inline StoredTensor tiny_half_tensor(const std::string& name, std::vector<int64_t> shape) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  std::vector<uint8_t> bytes(static_cast<size_t>(count) * 2);
  const std::vector<float> values = tiny_values(name, count);
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t half = f32_to_f16(values[i]);
    std::memcpy(bytes.data() + 2 * i, &half, 2);
  }
  return {name, "F16", std::move(shape), Bytes::own(std::move(bytes))};
}

// Writes config.json, model.safetensors (fp16), tokenizer.json and tokenizer_config.json.
inline void write_tiny_folder(const std::string& folder, const Json& document) {
  fs::create_directories(folder);
  const ModelConfig config = parse_model_config(document, nullptr, "test");
  std::vector<StoredTensor> tensors = {
      tiny_half_tensor("model.embed_tokens.weight", {config.vocab_size, config.hidden_size}),
      tiny_half_tensor("model.norm.weight", {config.hidden_size})};
  if (!config.tie_word_embeddings) {
    tensors.push_back(tiny_half_tensor("lm_head.weight", {config.vocab_size, config.hidden_size}));
  }
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
      tensors.push_back(tiny_half_tensor(prefix + norm + ".weight", {config.hidden_size}));
    }
    if (config.qk_norm) {
      for (const char* norm : {"self_attn.q_norm", "self_attn.k_norm"}) {
        tensors.push_back(tiny_half_tensor(prefix + norm + ".weight", {config.head_dim}));
      }
    }
    for (const auto& group : block_linears(config, i)) {
      for (const LinearSlot& slot : group) {
        tensors.push_back(tiny_half_tensor(slot.module + ".weight", {slot.rows, slot.cols}));
        if (slot.bias) tensors.push_back(tiny_half_tensor(slot.module + ".bias", {slot.rows}));
      }
    }
  }
  write_safetensors(fs::path(folder) / "model.safetensors", std::move(tensors));
  write_text(folder + "/config.json", dump_json(document));
  write_text(folder + "/tokenizer.json", tiny_tokenizer_json(config.vocab_size));
  write_text(folder + "/tokenizer_config.json",
             "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}");
}

// Relative path -> bytes, of every file in a folder (or of the file itself).
inline std::map<std::string, std::string> snapshot(const fs::path& path) {
  std::map<std::string, std::string> files;
  if (!fs::is_directory(path)) {
    files[""] = read_file(path, size_t{1} << 30);
    return files;
  }
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) {
      files[fs::relative(entry.path(), path).string()] = read_file(entry.path(), size_t{1} << 30);
    }
  }
  return files;
}

}  // namespace lowbit::test

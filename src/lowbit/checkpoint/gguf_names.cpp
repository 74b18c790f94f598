#include "lowbit/checkpoint/gguf_names.h"

#include <algorithm>
#include <string_view>

namespace lowbit {

namespace {

struct NamePair {
  std::string_view gguf;
  std::string_view hf;
};

constexpr NamePair kModelNames[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};

constexpr NamePair kBlockNames[] = {
    {"attn_norm", "input_layernorm"},    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},      {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"}};

constexpr std::string_view kGgufBlock = "blk.";
constexpr std::string_view kHfBlock = "model.layers.";

// Translates "<block prefix><number>.<module>.<weight or bias>" or "<module>.<weight or bias>",
// `from` and `to` being the two sides.
std::string translate(const std::string& name, std::string_view NamePair::*from,
                      std::string_view NamePair::*to, std::string_view from_block,
                      std::string_view to_block) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return "";
  const std::string leaf = name.substr(dot);  // ".weight"
  if (leaf != ".weight" && leaf != ".bias") return "";
  std::string_view module = std::string_view(name).substr(0, dot);
  if (module.substr(0, from_block.size()) != from_block) {
    for (const NamePair& pair : kModelNames) {
      if (pair.*from == module) return std::string(pair.*to) + leaf;
    }
    return "";
  }
  module.remove_prefix(from_block.size());
  const size_t digits = std::min(module.find('.'), module.size());
  const std::string_view number = module.substr(0, digits);
  const bool plain =
      !number.empty() && number.size() <= 4 && (number.size() == 1 || number.front() != '0') &&
      std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!plain || digits == module.size()) return "";
  for (const NamePair& pair : kBlockNames) {
    if (pair.*from != module.substr(digits + 1)) continue;
    return std::string(to_block).append(number).append(".").append(pair.*to).append(leaf);
  }
  return "";
}

}  // namespace

std::string hf_tensor_name(const std::string& gguf_name) {
  return translate(gguf_name, &NamePair::gguf, &NamePair::hf, kGgufBlock, kHfBlock);
}

std::string gguf_tensor_name(const std::string& hf_name) {
  return translate(hf_name, &NamePair::hf, &NamePair::gguf, kHfBlock, kGgufBlock);
}

bool gguf_permutes_rows(const std::string& arch) { return arch == "llama"; }

std::vector<int64_t> gguf_rows_in_hf_order(int64_t rows, int64_t head_dim) {
  std::vector<int64_t> order(static_cast<size_t>(rows));
  const int64_t half = head_dim / 2;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t in_head = row % head_dim;
    order[row] = row - in_head + 2 * (in_head % half) + in_head / half;
  }
  return order;
}

std::vector<int64_t> hf_rows_in_gguf_order(int64_t rows, int64_t head_dim) {
  std::vector<int64_t> order(static_cast<size_t>(rows));
  const std::vector<int64_t> inverse = gguf_rows_in_hf_order(rows, head_dim);
  for (int64_t row = 0; row < rows; ++row) order[inverse[row]] = row;
  return order;
}

}  // namespace lowbit

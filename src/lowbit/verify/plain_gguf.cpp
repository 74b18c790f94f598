// GGUF's tensors and names, read a second time (see plain_weight.h).
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/verify/plain_ggml.h"
#include "lowbit/verify/plain_weight.h"

namespace lowbit {

namespace {

// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"
std::string gguf_name(const std::string& hf_name) {
  constexpr std::pair<const char*, const char*> kWhole[] = {
      {"model.embed_tokens.weight", "token_embd.weight"}, {"lm_head.weight", "output.weight"}};
  for (const auto& [hf, gguf] : kWhole) {
    if (hf_name == hf) return gguf;
  }
  constexpr std::pair<const char*, const char*> kInBlock[] = {
      {"self_attn.q_proj", "attn_q"}, {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"}, {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},  {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
  };
  const std::string prefix = "model.layers.";
  if (hf_name.rfind(prefix, 0) != 0) return "";
  const size_t dot = hf_name.find('.', prefix.size());
  if (dot == std::string::npos) return "";
  for (const auto& [hf, gguf] : kInBlock) {
    if (hf_name.compare(dot + 1, std::string::npos, std::string(hf) + ".weight") == 0) {
      return "blk." + hf_name.substr(prefix.size(), dot - prefix.size()) + "." + gguf + ".weight";
    }
  }
  return "";
}

// Heads in a permuted tensor, 0 if its rows are in Hugging Face's order: llama.cpp rotates
// neighbouring rows of q and k where transformers rotates halves, for architecture llama only.
int64_t permuted_heads(const GgufContents& contents, const std::string& name) {
  if (contents.metadata.get_string("general.architecture", "") != "llama") return 0;
  const int64_t heads = contents.metadata.get_int("llama.attention.head_count", 0);
  if (name.find("attn_q.") != std::string::npos) return heads;
  if (name.find("attn_k.") == std::string::npos) return 0;
  return contents.metadata.get_int("llama.attention.head_count_kv", heads);
}

}  // namespace

PlainWeight plain_gguf_weight(const GgufContents& contents, std::span<const uint8_t> file,
                              const std::string& hf_name) {
  const std::string name = gguf_name(hf_name);
  for (const GgufTensor& tensor : contents.tensors) {
    if (tensor.name != name || tensor.ne.size() < 2) continue;
    for (const PlainGgmlType& type : plain_ggml_types()) {
      if (type.id != tensor.type) continue;
      const int64_t cols = tensor.ne[0], rows = tensor.ne[1];
      const int64_t row_bytes = cols / type.weights * type.bytes;
      LOWBIT_CHECK_KIND(tensor.begin + static_cast<uint64_t>(rows * row_bytes) <= file.size(),
                        ErrorKind::kCorruptFile, name, " is beyond the end of the file");
      const uint8_t* first = file.data() + tensor.begin;
      const int64_t heads = permuted_heads(contents, name);
      const int64_t head_dim = heads > 0 ? rows / heads : rows;
      return [=](int64_t n, int64_t k) {
        int64_t row = n;
        if (heads > 0) {
          const int64_t in_head = n % head_dim, half = head_dim / 2;
          row = n - in_head + 2 * (in_head % half) + in_head / half;
        }
        return type.element(first + row * row_bytes + k / type.weights * type.bytes,
                            k % type.weights);
      };
    }
  }
  return {};
}

}  // namespace lowbit

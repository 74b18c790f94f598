// GGUF's blocks and names, read a second time (see plain_weight.h).
#include <array>
#include <utility>

#include "lowbit/verify/plain_weight.h"
#include "lowbit/verify/raw_tensor.h"

namespace lowbit {

namespace {

constexpr int64_t kBlock = 32;  // weights in a block of every type here but the dense ones

float half_at(const uint8_t* bytes) {
  return f16_to_f32(static_cast<uint16_t>(bytes[0] | bytes[1] << 8));
}

// Elements 0 to 15 are the low nibbles, 16 to 31 the high ones.
int nibble_at(const uint8_t* bytes, int64_t i) { return bytes[i % 16] >> (i < 16 ? 0 : 4) & 15; }

float q4_0(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(nibble_at(block + 2, i) - 8);
}
float q4_1(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(nibble_at(block + 4, i)) + half_at(block + 2);
}
int five_bits(const uint8_t* high, const uint8_t* low, int64_t i) {
  return nibble_at(low, i) | (high[i / 8] >> (i % 8) & 1) << 4;
}
float q5_0(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(five_bits(block + 2, block + 6, i) - 16);
}
float q5_1(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(five_bits(block + 4, block + 8, i)) +
         half_at(block + 2);
}
float q8_0(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}
float f32(const uint8_t* element, int64_t) {
  float value;
  std::memcpy(&value, element, sizeof(value));
  return value;
}
float f16(const uint8_t* element, int64_t) { return half_at(element); }
float bf16(const uint8_t* element, int64_t) {
  return bf16_to_f32(static_cast<uint16_t>(element[0] | element[1] << 8));
}

struct BlockType {
  uint32_t id;  // ggml's
  int64_t weights, bytes;
  float (*element)(const uint8_t* block, int64_t index);
};
constexpr BlockType kTypes[] = {
    {0, 1, 4, f32},        {1, 1, 2, f16},        {30, 1, 2, bf16},      {2, kBlock, 18, q4_0},
    {3, kBlock, 20, q4_1}, {6, kBlock, 22, q5_0}, {7, kBlock, 24, q5_1}, {8, kBlock, 34, q8_0},
};

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
    for (const BlockType& type : kTypes) {
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

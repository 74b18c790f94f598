#include "lowbit/bench/random_checkpoint.h"

#include <cmath>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/model/model.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

namespace {

struct Shape {
  const char* name;
  const char* model_type;
  const char* architecture;
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim;
  bool tied;
};
constexpr Shape kShapes[] = {
    {"llama-3.1-8b", "llama", "LlamaForCausalLM", 128256, 4096, 14336, 32, 32, 8, 128, false},
    {"llama-3.1-70b", "llama", "LlamaForCausalLM", 128256, 8192, 28672, 80, 64, 8, 128, false},
    {"llama-3.2-1b", "llama", "LlamaForCausalLM", 128256, 2048, 8192, 16, 32, 8, 64, true},
    {"llama-3.2-3b", "llama", "LlamaForCausalLM", 128256, 3072, 8192, 28, 24, 8, 128, true},
    {"qwen3-8b", "qwen3", "Qwen3ForCausalLM", 151936, 4096, 12288, 36, 32, 8, 128, false},
    {"smollm2-135m", "llama", "LlamaForCausalLM", 49152, 576, 1536, 30, 9, 3, 64, true},
};

struct Format {
  const char* name;
  QuantScheme linears, head;
};
constexpr QuantScheme kInt8Head = int_scheme(8, 128);
constexpr Format kFormats[] = {
    {"bf16", dense_scheme(Code::kBF16), dense_scheme(Code::kBF16)},
    {"f16", dense_scheme(Code::kF16), dense_scheme(Code::kF16)},
    {"w8a16_g128", int_scheme(8, 128), kInt8Head},
    {"w4a16_g128", int_scheme(4, 128), kInt8Head},
    {"w4a16_g64", int_scheme(4, 64), kInt8Head},
    {"w4a16_g32", int_scheme(4, 32), kInt8Head},
    {"w4a16_g128_zero", int_scheme(4, 128, Zero::kInt), kInt8Head},
    {"w4a16_g64_offset", int_scheme(4, 64, Zero::kOffset), kInt8Head},
    {"w3a16_g128", int_scheme(3, 128), kInt8Head},
    {"w2a16_g64", int_scheme(2, 64), kInt8Head},
    {"fp8", fp8_scheme(1, 0), fp8_scheme(1, 0)},
    {"nf4_g64", table_scheme(Code::kNf4, 64), kInt8Head},
    {"mxfp4", table_scheme(Code::kE2M1, 32, ScaleForm::kE8M0), kInt8Head},
};

template <typename Row, size_t kCount>
std::vector<std::string> names_of(const Row (&rows)[kCount]) {
  std::vector<std::string> names;
  for (const Row& row : rows) names.emplace_back(row.name);
  return names;
}

template <typename Row, size_t kCount>
const Row& find(const char* what, const std::string& name, const Row (&rows)[kCount]) {
  std::string known;
  for (const Row& row : rows) {
    if (name == row.name) return row;
    known += concat(known.empty() ? "" : ", ", row.name);
  }
  fail(ErrorKind::kInvalidArgument, "unknown ", what, " \"", name, "\"; there are ", known);
}

Json config_of(const Shape& shape) {
  return Json{{"model_type", shape.model_type},
              {"architectures", Json::array({shape.architecture})},
              {"vocab_size", shape.vocab},
              {"hidden_size", shape.hidden},
              {"intermediate_size", shape.intermediate},
              {"num_hidden_layers", shape.layers},
              {"num_attention_heads", shape.heads},
              {"num_key_value_heads", shape.kv_heads},
              {"head_dim", shape.head_dim},
              {"max_position_embeddings", 131072},
              {"rms_norm_eps", 1e-5},
              {"rope_theta", 500000.0},
              {"tie_word_embeddings", shape.tied},
              {"hidden_act", "silu"}};
}

// Marsaglia's xorshift64*.
class Noise {
 public:
  explicit Noise(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 2685821657736338717u;
  }
  float uniform() { return static_cast<float>(next() >> 40) * 0x1p-24f; }  // [0, 1)

 private:
  uint64_t state_;
};

// Bits of a random word that stay random, and bits that are set, so that floats are ordinary.
struct WordForm {
  uint64_t random, set;
};
WordForm word_form(Code code) {
  switch (code) {
    case Code::kBF16:  // +-2^-6 * [1, 2)
      return {0x807f807f807f807fu, 0x3c803c803c803c80u};
    case Code::kF16:
      return {0x83ff83ff83ff83ffu, 0x2400240024002400u};
    case Code::kF32:
      return {0x807fffff807fffffu, 0x3c8000003c800000u};
    case Code::kE4M3:  // +-[1, 2)
      return {0x8787878787878787u, 0x3838383838383838u};
    default:
      return {~uint64_t{0}, 0};
  }
}

}  // namespace

QTensor random_qtensor(const QuantScheme& scheme, int64_t rows, int64_t cols, uint64_t seed) {
  Noise noise(seed);
  QTensor weight;
  weight.scheme = for_shape(scheme, rows, cols);
  weight.rows = rows;
  weight.cols = cols;
  const WordForm form = word_form(scheme.code);
  std::vector<uint8_t> codes(static_cast<size_t>(rows * weight.row_bytes()));
  for (size_t at = 0; at < codes.size(); at += 8) {
    const uint64_t word = (noise.next() & form.random) | form.set;
    std::memcpy(codes.data() + at, &word, std::min<size_t>(8, codes.size() - at));
  }
  weight.codes = Bytes::own(std::move(codes));
  if (scheme.dense()) return weight;
  const float range = scheme.code == Code::kInt     ? static_cast<float>(1 << scheme.bits)
                      : scheme.code == Code::kIq4Nl ? 127.f
                                                    : 4.f;
  for (int64_t i = 0; i < weight.scale_rows() * weight.groups(); ++i) {
    float scale = f16_to_f32(f32_to_f16((0.5f + noise.uniform()) * 0.06f / range));
    if (scheme.scale_form == ScaleForm::kE8M0) scale = std::exp2(std::round(std::log2(scale)));
    weight.scales.push_back(scale);
    if (scheme.zero == Zero::kInt) {
      weight.zeros.push_back(static_cast<uint8_t>(noise.next() >> (64 - scheme.bits)));
    }
    if (scheme.zero == Zero::kOffset) {
      weight.offsets.push_back(f16_to_f32(f32_to_f16(-scale * range * 0.5f)));
    }
  }
  return weight;
}

std::vector<std::string> random_shapes() { return names_of(kShapes); }
std::vector<std::string> random_formats() { return names_of(kFormats); }

RandomCheckpoint::RandomCheckpoint(const std::string& shape, const std::string& format)
    : path_(shape), format_(format), config_(config_of(find("shape", shape, kShapes))) {
  find("format", format, kFormats);
  const ModelConfig model = parse_model_config(config_, none_, path_);
  const auto add = [&](const std::string& module, int64_t rows, int64_t cols) {
    tensors_.push_back({module + ".weight", {rows, cols}, format_, 0});
  };
  add("model.embed_tokens", model.vocab_size, model.hidden_size);
  if (!model.tie_word_embeddings) add("lm_head", model.vocab_size, model.hidden_size);
  for (int64_t i = 0; i < model.num_hidden_layers; ++i) {
    for (const auto& group : block_linears(model, i)) {
      for (const LinearSlot& slot : group) add(slot.module, slot.rows, slot.cols);
    }
  }
}

TokenizerSpec RandomCheckpoint::tokenizer() const {
  fail(ErrorKind::kIo, path_, ": random weights have no tokenizer.json");
}

LinearWeight RandomCheckpoint::load_linear(const std::string& module, int64_t rows,
                                           int64_t cols) const {
  const Format& format = find("format", format_, kFormats);
  const bool embedding = module == "model.embed_tokens";
  const bool head = module == "lm_head" || (embedding && !contains("lm_head.weight"));
  const QuantScheme& scheme = head        ? format.head
                              : embedding ? dense_scheme(Code::kBF16)
                                          : format.linears;
  const auto [found, fresh] = made_.try_emplace(concat(rows, "x", cols, head || embedding));
  if (fresh) found->second = random_qtensor(scheme, rows, cols, static_cast<uint64_t>(rows + cols));
  return {module, found->second, {}};
}

std::vector<float> RandomCheckpoint::load_vector(const std::string&, int64_t size) const {
  return std::vector<float>(static_cast<size_t>(size), 1.f);
}

}  // namespace lowbit

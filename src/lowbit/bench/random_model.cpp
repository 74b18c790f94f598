#include "lowbit/bench/random_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "lowbit/base/check.h"
#include "lowbit/bench/noise.h"
#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tokenizer/byte_level.h"

namespace lowbit {

namespace {

// FNV-1a
uint64_t hash(const std::string& text) {
  uint64_t value = 14695981039346656037u;
  for (const char c : text) value = (value ^ static_cast<uint8_t>(c)) * 1099511628211u;
  return value;
}

// Standard deviation of what random codes stand for, before the scale.
float spread_of(const QuantScheme& scheme) {
  switch (scheme.code) {
    case Code::kInt:
      return static_cast<float>(1 << scheme.bits) * 0.29f;
    case Code::kIq4Nl:
      return 70.f;
    case Code::kNf4:
    case Code::kFp4:
      return 0.6f;
    case Code::kE2M1:
      return 3.f;
    case Code::kE4M3:
      return 130.f;
    default:
      return 1.f;
  }
}

// Random signs and mantissas of values between 2^-6 and 2^-5.
uint32_t random_float(Code code, uint64_t bits) {
  const auto low = static_cast<uint32_t>(bits);
  if (code == Code::kF16) return 0x2400u | (low & 0x83ffu);
  if (code == Code::kBF16) return 0x3c80u | (low & 0x807fu);
  return 0x3c800000u | (low & 0x807fffffu);
}

std::vector<uint8_t> random_codes(const QuantScheme& scheme, size_t bytes, Noise& noise) {
  std::vector<uint8_t> codes(bytes);
  if (scheme.dense()) {
    const size_t size = static_cast<size_t>(scheme.bits) / 8;
    for (size_t at = 0; at + size <= bytes; at += size) {
      const uint32_t value = random_float(scheme.code, noise.next());
      std::memcpy(codes.data() + at, &value, size);
    }
    return codes;
  }
  size_t at = 0;
  for (; at + 8 <= bytes; at += 8) {
    const uint64_t word = noise.next();
    std::memcpy(codes.data() + at, &word, 8);
  }
  for (; at < bytes; ++at) codes[at] = static_cast<uint8_t>(noise.next());
  if (scheme.code == Code::kE4M3) {
    for (uint8_t& code : codes) {
      if ((code & 0x7f) == 0x7f) code ^= 1;  // NaN
    }
  }
  return codes;
}

// The nearest scale that the form can hold.
float as_form(ScaleForm form, float scale, float global) {
  if (form == ScaleForm::kE8M0) return std::exp2(std::round(std::log2(scale)));
  if (form == ScaleForm::kE4M3) return e4m3_to_f32(f32_to_e4m3(scale * global)) / global;
  return f16_to_f32(f32_to_f16(scale));
}

}  // namespace

namespace {

// Pairs of bits 00 become 01: with a zero point of 2, what stood for -2 stands for -1.
void make_ternary(std::vector<uint8_t>& codes) {
  for (uint8_t& byte : codes) {
    const int some = byte | byte >> 1;
    byte = static_cast<uint8_t>(byte | (~some & 0x55));
  }
}

// Scales and offsets as K-quants have them.
void make_multiples(QTensor& weight) {
  const int64_t size = 256 / weight.scheme.group_size;
  Noise noise(static_cast<uint64_t>(weight.rows));
  const auto rounded = [](float value) { return f16_to_f32(f32_to_f16(value)); };
  float scale = 0, offset = 0;
  for (size_t i = 0; i < weight.scales.size(); ++i) {
    const bool first = i % static_cast<size_t>(size) == 0;
    const auto multiple = static_cast<float>(20 + noise.next() % 43);
    if (first) scale = rounded(weight.scales[i] / 40);
    weight.scales[i] = scale * multiple;
    if (weight.scheme.zero != Zero::kOffset) continue;
    if (first) offset = rounded(weight.offsets[i] / 40);
    weight.offsets[i] = offset * multiple;
  }
}

// Every so many columns, their weights as halves.
std::shared_ptr<const OutlierColumns> random_outliers(int64_t count, int64_t rows, int64_t cols,
                                                      Noise& noise) {
  auto outliers = std::make_shared<OutlierColumns>();
  count = std::min(count, cols);
  for (int64_t i = 0; i < count; ++i) {
    outliers->columns.push_back(static_cast<int32_t>(i * cols / count));
  }
  QTensor& weight = outliers->weight;
  weight.scheme = dense_scheme(Code::kF16);
  weight.rows = rows;
  weight.cols = count;
  const auto bytes = static_cast<size_t>(rows * weight.row_bytes());
  weight.codes = Bytes::own(random_codes(weight.scheme, bytes, noise));
  return outliers;
}

}  // namespace

QTensor random_weight(const WeightFormat& format, int64_t rows, int64_t cols, uint64_t seed) {
  LOWBIT_CHECK(format.scheme.scale_form != ScaleForm::kNested,
               "random weights have no nested scales");
  Noise noise(seed);
  QTensor weight;
  weight.scheme = for_shape(format.scheme, rows, cols);
  const QuantScheme& scheme = weight.scheme;
  weight.rows = rows;
  weight.cols = cols;
  const auto bytes = static_cast<size_t>(rows * weight.row_bytes());
  std::vector<uint8_t> codes = random_codes(scheme, bytes, noise);
  if (format.values == WeightFormat::Values::kTernary) make_ternary(codes);
  weight.codes = Bytes::own(std::move(codes));
  if (scheme.dense()) return weight;
  const float unit = 0.02f / spread_of(scheme);
  if (scheme.scale_form == ScaleForm::kE4M3) weight.global_scale = 64.f / unit;
  const int64_t entries = weight.scale_rows() * weight.groups();
  weight.scales.reserve(static_cast<size_t>(entries));
  const float middle = static_cast<float>(1 << scheme.bits) * 0.5f;
  for (int64_t i = 0; i < entries; ++i) {
    const float scale =
        as_form(scheme.scale_form, unit * (0.5f + noise.uniform()), weight.global_scale);
    weight.scales.push_back(scale);
    if (scheme.zero == Zero::kInt) weight.zeros.push_back(static_cast<uint8_t>(middle));
    if (scheme.zero == Zero::kOffset) {
      weight.offsets.push_back(f16_to_f32(f32_to_f16(-scale * middle)));
    }
  }
  if (format.values == WeightFormat::Values::kMultiples && cols % 256 == 0) make_multiples(weight);
  if (format.outliers > 0) weight.outliers = random_outliers(format.outliers, rows, cols, noise);
  return weight;
}

namespace {

struct NamedFormat {
  const char* name;
  WeightFormat format;
};

using Values = WeightFormat::Values;

constexpr QuantScheme rounding(QuantScheme scheme) {
  scheme.input_bits = 8;
  return scheme;
}

constexpr NamedFormat kFormats[] = {
    {"q4_0", {int_scheme(4, 32)}},
    {"q4_1", {int_scheme(4, 32, Zero::kOffset)}},
    {"q5_0", {int_scheme(5, 32)}},
    {"q8_0", {int_scheme(8, 32)}},
    {"q4_k", {int_scheme(4, 32, Zero::kOffset), Values::kMultiples}},
    {"q6_k", {int_scheme(6, 16), Values::kMultiples}},
    {"iq4_nl", {{Code::kIq4Nl, 4, 1, 32, Zero::kNone}}},
    {"awq", {int_scheme(4, 128, Zero::kInt)}},
    {"gptq", {int_scheme(4, 128)}},
    {"w4a16_g128", {int_scheme(4, 128)}},
    {"w4a16_g64", {int_scheme(4, 64)}},
    {"w4a16_g32", {int_scheme(4, 32)}},
    {"w8a16_g128", {int_scheme(8, 128)}},
    {"w2_g64", {int_scheme(2, 64, Zero::kInt)}},
    {"w3_g64", {int_scheme(3, 64, Zero::kInt)}},
    {"w4_g64", {int_scheme(4, 64)}},
    {"w4_g128", {int_scheme(4, 128)}},
    {"w4_row", {int_scheme(4, 0)}},
    {"w8_g128", {int_scheme(8, 128)}},
    {"w8_row", {int_scheme(8, 0)}},
    {"ternary", {int_scheme(2, 0), Values::kTernary}},
    {"nf4", {table_scheme(Code::kNf4, 64)}},
    {"fp4", {table_scheme(Code::kFp4, 64)}},
    {"mxfp4", {table_scheme(Code::kE2M1, 32, ScaleForm::kE8M0)}},
    {"nvfp4", {table_scheme(Code::kE2M1, 16, ScaleForm::kE4M3)}},
    {"mxfp8", {fp8_scheme(1, 32, ScaleForm::kE8M0)}},
    {"fp8", {fp8_scheme(1, 0)}},
    {"fp8_block", {fp8_scheme(128, 128)}},
    {"fp8_a8", {rounding(fp8_scheme(1, 0))}},
    {"w8a8", {rounding(int_scheme(8, 0))}},
    {"w4a8", {rounding(int_scheme(4, 0))}},
    {"w4a8_g128", {rounding(int_scheme(4, 128))}},
    {"w8a8_o128", {rounding(int_scheme(8, 0)), Values::kAny, 128}},
    {"w4a8_o128", {rounding(int_scheme(4, 0)), Values::kAny, 128}},
    {"bf16", {dense_scheme(Code::kBF16)}},
    {"f16", {dense_scheme(Code::kF16)}},
    {"f32", {dense_scheme(Code::kF32)}},
};

}  // namespace

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const NamedFormat& row : kFormats) names.emplace_back(row.name);
  return names;
}

WeightFormat format_by_name(const std::string& name) {
  std::string names;
  for (const NamedFormat& row : kFormats) {
    if (name == row.name) return row.format;
    names += concat(names.empty() ? "" : ", ", row.name);
  }
  fail(ErrorKind::kInvalidArgument, "no format is called \"", name, "\"; there are ", names);
}

namespace {

struct ModelShape {
  const char* name;
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads;
  bool tied;
};

constexpr ModelShape kShapes[] = {
    {"llama-3.1-8b", 128256, 4096, 14336, 32, 32, 8, false},
    {"llama-3.1-70b", 128256, 8192, 28672, 80, 64, 8, false},
    {"llama-3.2-1b", 128256, 2048, 8192, 16, 32, 8, true},
    {"llama-3.2-3b", 128256, 3072, 8192, 28, 24, 8, true},
    {"smollm2-135m", 49152, 576, 1536, 30, 9, 3, true},
};

Json config_of(const ModelShape& shape, int64_t layers) {
  return Json{{"architectures", {"LlamaForCausalLM"}},
              {"model_type", "llama"},
              {"vocab_size", shape.vocab},
              {"hidden_size", shape.hidden},
              {"intermediate_size", shape.intermediate},
              {"num_hidden_layers", layers > 0 ? layers : shape.layers},
              {"num_attention_heads", shape.heads},
              {"num_key_value_heads", shape.kv_heads},
              {"max_position_embeddings", 131072},
              {"rms_norm_eps", 1e-5},
              {"rope_theta", 500000.0},
              {"tie_word_embeddings", shape.tied}};
}

// Byte-level pieces: the bytes, then "w256", "w257" and so on, which nothing merges to.
TokenizerSpec made_up_tokenizer(int64_t vocab_size) {
  TokenizerSpec spec;
  for (int64_t id = 0; id < vocab_size; ++id) {
    std::string piece;
    const bool byte = id < 256;
    append_byte_level(byte ? std::string(1, static_cast<char>(id)) : concat("w", id), piece);
    spec.vocab.push_back(piece);
  }
  spec.pre_tokenizer = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  spec.decoder = {{"type", "ByteLevel"}};
  return spec;
}

class RandomModel : public Checkpoint {
 public:
  RandomModel(const ModelShape& shape, const RandomModelOptions& options)
      : options_(options),
        path_(concat("random ", shape.name)),
        format_(name_of(options.format.scheme)),
        config_(config_of(shape, options.layers)),
        tied_(shape.tied) {}

  const std::string& path() const override { return path_; }
  const std::string& format() const override { return format_; }
  const Json& config() const override { return config_; }
  const Json& generation_config() const override { return nothing_; }
  TokenizerSpec tokenizer() const override {
    return made_up_tokenizer(config_["vocab_size"].get<int64_t>());
  }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  bool contains(const std::string& name) const override {
    return name != "lm_head.weight" || !tied_;
  }
  LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const override {
    const bool in_block = module.rfind("model.layers.", 0) == 0;
    const WeightFormat& format = in_block ? options_.format : options_.head;
    const std::string key = concat(in_block, " ", rows, " x ", cols);
    const auto [found, fresh] = made_.try_emplace(key);
    if (fresh) found->second = random_weight(format, rows, cols, hash(key) + options_.seed);
    return {module, found->second, {}};
  }
  std::vector<float> load_vector(const std::string&, int64_t size) const override {
    return std::vector<float>(static_cast<size_t>(size), 1.f);
  }
  void release(const std::string&) const override {}

 private:
  RandomModelOptions options_;
  std::string path_, format_;
  Json config_, nothing_;
  bool tied_;
  std::vector<TensorInfo> tensors_;  // there is no file to list
  mutable std::map<std::string, QTensor> made_;
};

}  // namespace

std::vector<std::string> random_model_shapes() {
  std::vector<std::string> names;
  for (const ModelShape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

std::unique_ptr<Checkpoint> make_random_model(const RandomModelOptions& options) {
  std::string names;
  for (const ModelShape& shape : kShapes) {
    if (options.shape == shape.name) return std::make_unique<RandomModel>(shape, options);
    names += concat(names.empty() ? "" : ", ", shape.name);
  }
  fail(ErrorKind::kInvalidArgument, "no shape of a model is called \"", options.shape,
       "\"; there are ", names);
}

}  // namespace lowbit

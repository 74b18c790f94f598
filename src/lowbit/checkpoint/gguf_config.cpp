#include "lowbit/checkpoint/gguf_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"

namespace lowbit {

namespace {

struct Architecture {
  const char* name;  // general.architecture, and model_type
  const char* hf;    // "architectures"
};
constexpr Architecture kArchitectures[] = {
    {"llama", "LlamaForCausalLM"}, {"qwen2", "Qwen2ForCausalLM"}, {"qwen3", "Qwen3ForCausalLM"}};

const Architecture& find_architecture(const GgufMetadata& metadata) {
  const std::string name = metadata.get_string("general.architecture");
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (name == architecture.name) return architecture;
    known += concat(known.empty() ? "" : ", ", architecture.name);
  }
  fail(ErrorKind::kUnsupported, metadata.origin, ": architecture \"", name.substr(0, 64),
       "\" is not supported; supported are ", known);
}

// Keys that begin with the architecture's name.
class Keys {
 public:
  Keys(const GgufMetadata& metadata, const std::string& architecture)
      : metadata_(metadata), prefix_(architecture + ".") {}

  bool contains(const std::string& key) const { return metadata_.contains(prefix_ + key); }
  // A positive number. Files hold fp32; 1e-5 shall not become 9.999999747378752e-06.
  double number(const std::string& key, std::optional<double> fallback = {}) const {
    const double value = metadata_.get_double(prefix_ + key, fallback);
    LOWBIT_CHECK_KIND(std::isfinite(value) && value > 0, ErrorKind::kCorruptFile, metadata_.origin,
                      ": metadata \"", prefix_, key, "\" is ", value, ", must be positive");
    const auto single = static_cast<float>(value);
    if (double{single} != value) return value;
    char digits[32];
    const char* end = std::to_chars(digits, digits + sizeof(digits), single).ptr;
    double shortest = value;
    std::from_chars(digits, end, shortest);
    return shortest;
  }
  std::string text(const std::string& key, const std::string& fallback) const {
    return metadata_.get_string(prefix_ + key, fallback);
  }
  // An integer in [1, most]; some converters write one per layer, which must then agree.
  int64_t count(const std::string& key, int64_t most, std::optional<int64_t> fallback = {}) const {
    const auto it = metadata_.values.find(prefix_ + key);
    int64_t value = 0;
    if (it != metadata_.values.end() && it->second.type == gguf_type::kArray) {
      value = uniform(metadata_.get_numbers(prefix_ + key), key, most);
    } else {
      value = metadata_.get_int(prefix_ + key, fallback);
    }
    LOWBIT_CHECK_KIND(value >= 1 && value <= most, ErrorKind::kCorruptFile, metadata_.origin,
                      ": metadata \"", prefix_, key, "\" is ", value, ", possible are 1 to ", most);
    return value;
  }

 private:
  int64_t uniform(const std::vector<double>& values, const std::string& key, int64_t most) const {
    const bool same = !values.empty() && std::all_of(values.begin(), values.end(),
                                                     [&](double v) { return v == values[0]; });
    LOWBIT_CHECK_KIND(same, ErrorKind::kUnsupported, metadata_.origin, ": metadata \"", prefix_,
                      key, "\" differs between layers, which is not supported");
    return values[0] >= 1 && values[0] <= static_cast<double>(most)
               ? static_cast<int64_t>(values[0])
               : 0;
  }

  const GgufMetadata& metadata_;
  std::string prefix_;
};

// The divisors of inv_freq that rope type llama3 gives (formula of transformers and llama.cpp).
double llama3_factor(double inv_freq, double factor, double low, double high, double original) {
  const double wavelength = 2 * std::numbers::pi / inv_freq;
  if (wavelength < original / high) return 1;
  if (wavelength > original / low) return factor;
  const double smooth = (original / wavelength - low) / (high - low);
  return 1 / ((1 - smooth) / factor + smooth);
}

// Files keep only the factors. transformers knows them as llama3's parameters, so those are found
// again where the factors are that formula's with the parameters every Llama 3 has.
Json rope_factors(const std::vector<double>& factors, double theta, double original) {
  constexpr double kLow = 1, kHigh = 4;
  const double factor = std::round(factors.back() * 1000) / 1000;
  for (const double candidate : {8192.0, original}) {
    double worst = 0;
    for (size_t i = 0; i < factors.size(); ++i) {
      const double inv_freq =
          std::pow(theta, -static_cast<double>(i) / static_cast<double>(factors.size()));
      const double expected = llama3_factor(inv_freq, factor, kLow, kHigh, candidate);
      worst = std::max(worst, std::abs(factors[i] / expected - 1));
    }
    if (worst < 1e-4) {
      return {{"rope_type", "llama3"},
              {"factor", factor},
              {"low_freq_factor", kLow},
              {"high_freq_factor", kHigh},
              {"original_max_position_embeddings", static_cast<int64_t>(candidate)}};
    }
  }
  return {{"rope_type", "factors"}, {"factors", factors}};
}

Json rope_scaling(const Keys& keys, const std::vector<double>& factors, double theta,
                  int64_t context) {
  const std::string type = keys.text("rope.scaling.type", "none");
  const int64_t original =
      keys.count("rope.scaling.original_context_length", limits::kContext, context);
  const bool old_linear = keys.contains("rope.scale_linear");
  const double factor = keys.number(old_linear ? "rope.scale_linear" : "rope.scaling.factor", 1.0);
  if (type == "linear" || (old_linear && type == "none")) {
    if (factor == 1.0) return {};
    return {{"rope_type", "linear"}, {"factor", factor}};
  }
  if (type != "none") {
    // Not something lowbit runs; the model's config says so by name.
    return {{"rope_type", type.substr(0, 64)},
            {"factor", factor},
            {"original_max_position_embeddings", original}};
  }
  const bool ones =
      std::all_of(factors.begin(), factors.end(), [](double value) { return value == 1; });
  return ones ? Json() : rope_factors(factors, theta, static_cast<double>(original));
}

// One id, or the list of all that end a turn.
Json token_ids(const GgufMetadata& metadata, std::initializer_list<const char*> names) {
  Json ids = Json::array();
  for (const char* name : names) {
    const std::string key = concat("tokenizer.ggml.", name, "_token_id");
    const int64_t id = metadata.get_int(key, -1);
    if (id < 0 || id >= limits::kVocabSize) continue;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  if (ids.empty()) return {};
  return ids.size() == 1 ? ids[0] : ids;
}

void check_supported(const GgufMetadata& metadata, const std::string& architecture,
                     int64_t head_dim) {
  const Keys keys(metadata, architecture);
  const auto unsupported = [&](const auto&... parts) {
    fail(ErrorKind::kUnsupported, metadata.origin, ": ", parts...);
  };
  if (metadata.get_int(architecture + ".expert_count", 0) > 1) {
    unsupported("a mixture of experts, which is not supported");
  }
  const int64_t rotated = keys.count("rope.dimension_count", limits::kDimension, head_dim);
  if (rotated != head_dim) {
    unsupported("rotates ", rotated, " of ", head_dim, " dimensions of a head; only all work");
  }
  const int64_t value_length = keys.count("attention.value_length", limits::kDimension, head_dim);
  if (value_length != head_dim) {
    unsupported("heads of ", head_dim, " with values of ", value_length, "; they must be equal");
  }
}

}  // namespace

Json gguf_config(const GgufMetadata& metadata, const GgufFacts& facts) {
  const Architecture& architecture = find_architecture(metadata);
  const Keys keys(metadata, architecture.name);
  const int64_t hidden = keys.count("embedding_length", limits::kDimension);
  const int64_t heads = keys.count("attention.head_count", limits::kDimension);
  const bool even = hidden % heads == 0;
  LOWBIT_CHECK_KIND(even || keys.contains("attention.key_length"), ErrorKind::kCorruptFile,
                    metadata.origin, ": embedding_length ", hidden, " is not a multiple of ", heads,
                    " heads, and attention.key_length is missing");
  const int64_t head_dim =
      keys.count("attention.key_length", limits::kDimension, even ? hidden / heads : 0);
  check_supported(metadata, architecture.name, head_dim);
  const int64_t context = keys.count("context_length", limits::kContext);
  const double theta = keys.number("rope.freq_base", 10000.0);

  Json config = {
      {"architectures", {architecture.hf}},
      {"model_type", architecture.name},
      {"hidden_act", "silu"},
      {"vocab_size", facts.vocab_size},
      {"hidden_size", hidden},
      {"intermediate_size", keys.count("feed_forward_length", limits::kDimension)},
      {"num_hidden_layers", keys.count("block_count", limits::kLayers)},
      {"num_attention_heads", heads},
      {"num_key_value_heads", keys.count("attention.head_count_kv", limits::kDimension, heads)},
      {"head_dim", head_dim},
      {"max_position_embeddings", context},
      {"rms_norm_eps", keys.number("attention.layer_norm_rms_epsilon")},
      {"rope_theta", theta},
      {"tie_word_embeddings", facts.tied},
      {"bos_token_id", token_ids(metadata, {"bos"})},
      {"eos_token_id", token_ids(metadata, {"eos", "eot", "eom"})},
      {"torch_dtype", "float16"},
  };
  const Json scaling = rope_scaling(keys, facts.rope_factors, theta, context);
  if (!scaling.is_null()) config["rope_scaling"] = scaling;
  config["attention_bias"] = facts.attention_bias || config["model_type"] == "qwen2";
  if (config["model_type"] == "llama") config["mlp_bias"] = facts.mlp_bias;
  return config;
}

}  // namespace lowbit

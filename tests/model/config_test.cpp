#include "lowbit/model/config.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "support/tiny_model.h"

namespace lowbit {
namespace {

Json llama() {
  return Json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "hidden_act": "silu", "bos_token_id": 128000, "eos_token_id": [128001, 128008]})");
}

Json with(Json config, const char* changes) {
  config.merge_patch(Json::parse(changes));
  return config;
}

// merge_patch removes members that are null; this sets them.
Json with_null(Json config, const char* key) {
  config[key] = nullptr;
  return config;
}

ModelConfig parse(const Json& config, const Json& generation = nullptr) {
  return parse_model_config(config, generation, "config.json");
}

// The error's kind and that its message holds `part`.
void expect_error(const Json& config, ErrorKind kind, const std::string& part) {
  try {
    parse(config);
    ADD_FAILURE() << "accepted " << config.dump();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(ModelConfig, ReadsLlama31) {
  const ModelConfig config = parse(llama());
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.num_key_value_heads, 8);
  EXPECT_FALSE(config.qkv_bias || config.o_bias || config.mlp_bias || config.qk_norm);
  EXPECT_EQ(config.bos_token_id, 128000);
  EXPECT_EQ(config.parameters(), 8030261248);
  EXPECT_EQ(config.kv_cache(1, DType::kF16).token_bytes(), 2 * 32 * 8 * 128 * 2);
}

TEST(ModelConfig, CountsParametersOfSmolLm2) {
  const ModelConfig config =
      parse(with(llama(), R"({"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
      "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
      "tie_word_embeddings": true})"));
  EXPECT_EQ(config.parameters(), 134515008);
}

TEST(ModelConfig, NullMeansDerivedFromTheOthers) {
  const ModelConfig config =
      parse(with_null(with_null(llama(), "head_dim"), "num_key_value_heads"));
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.num_key_value_heads, 32);
  EXPECT_EQ(parse(with(llama(), R"({"head_dim": 64})")).head_dim, 64);
}

TEST(ModelConfig, TheThreeSpellingsOfRopeAreOne) {
  const char* scaling = R"({"rope_scaling": {"TYPE": "llama3", "factor": 8.0,
      "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192}})";
  std::string old_spelling(scaling), new_spelling(scaling);
  old_spelling.replace(old_spelling.find("TYPE"), 4, "type");
  new_spelling.replace(new_spelling.find("TYPE"), 4, "rope_type");
  Json v5 = with(llama(), new_spelling.c_str());
  v5["rope_parameters"] = v5["rope_scaling"];
  v5["rope_parameters"]["rope_theta"] = v5["rope_theta"];
  v5.erase("rope_scaling");
  v5.erase("rope_theta");
  for (const Json& config :
       {with(llama(), old_spelling.c_str()), with(llama(), new_spelling.c_str()), v5}) {
    const RopeConfig rope = parse(config).rope;
    EXPECT_EQ(rope.type, RopeType::kLlama3);
    EXPECT_EQ(rope.theta, 500000.0);
    EXPECT_EQ(rope.factor, 8.0);
    EXPECT_EQ(rope.original_max_position_embeddings, 8192);
  }
}

TEST(ModelConfig, EndTokensOfBothFilesCount) {
  EXPECT_EQ(parse(llama(), Json::parse(R"({"eos_token_id": [128009, 128001]})")).eos_token_ids,
            (std::vector<int32_t>{128001, 128008, 128009}));
  EXPECT_EQ(parse(with(llama(), R"({"eos_token_id": 7})"), Json::parse(R"({"eos_token_id": 9})"))
                .eos_token_ids,
            (std::vector<int32_t>{7, 9}));
  EXPECT_TRUE(parse(with_null(llama(), "eos_token_id")).eos_token_ids.empty());
}

TEST(ModelConfig, EachFamilyHasItsOwn) {
  const auto family = [](const char* type, const char* architecture, const char* changes = "{}") {
    Json config = with(llama(), changes);
    config["model_type"] = type;
    config["architectures"] = {architecture};
    return parse(config);
  };
  EXPECT_TRUE(parse(with(llama(), R"({"attention_bias": true})")).o_bias);
  EXPECT_EQ(family("mistral", "MistralForCausalLM", R"({"sliding_window": 4096})").window(3), 4096);
  EXPECT_EQ(family("mistral", "MistralForCausalLM").sliding_window, 4096);

  const char* unused = R"({"sliding_window": 4096, "use_sliding_window": false})";
  const ModelConfig qwen2 = family("qwen2", "Qwen2ForCausalLM", unused);
  EXPECT_TRUE(qwen2.qkv_bias && !qwen2.o_bias);
  EXPECT_EQ(qwen2.window(31), 0);

  const char* used =
      R"({"sliding_window": 4096, "use_sliding_window": true, "max_window_layers": 30})";
  EXPECT_EQ(family("qwen2", "Qwen2ForCausalLM", used).window(29), 0);
  EXPECT_EQ(family("qwen2", "Qwen2ForCausalLM", used).window(30), 4096);

  const ModelConfig qwen3 = family("qwen3", "Qwen3ForCausalLM");
  EXPECT_TRUE(qwen3.qk_norm && !qwen3.qkv_bias);
  EXPECT_EQ(qwen3.head_dim, 128);
}

TEST(ModelConfig, LayerTypesSayWhoSlides) {
  Json config = with(llama(), R"({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"],
      "num_hidden_layers": 3, "use_sliding_window": true, "sliding_window": 8,
      "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]})");
  EXPECT_EQ(parse(config).sliding_layers, (std::vector<bool>{true, false, true}));
  config["layer_types"][1] = "linear_attention";
  expect_error(config, ErrorKind::kUnsupported, "linear_attention");
  config["layer_types"] = {"full_attention"};
  expect_error(config, ErrorKind::kCorruptFile, "layer_types");
}

TEST(ModelConfig, UnknownArchitecturesAreNamedWithTheKnownOnes) {
  const auto unsupported = ErrorKind::kUnsupported;
  expect_error(with(llama(), R"({"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]})"),
               unsupported, "Gemma2ForCausalLM");
  expect_error(with(llama(), R"({"model_type": "gemma2", "architectures": null})"), unsupported,
               "gemma2");
  expect_error(with(llama(), R"({"architectures": ["LlamaForSequenceClassification"]})"),
               unsupported, "LlamaForSequenceClassification");
  expect_error(with(llama(), R"({"model_type": "phi3"})"), unsupported, "Qwen3ForCausalLM");
  expect_error(with(llama(), R"({"hidden_act": "gelu"})"), unsupported, "gelu");
}

TEST(ModelConfig, OtherRopesAreNamed) {
  for (const std::string type : {"yarn", "dynamic", "longrope", "su", "mrope"}) {
    Json config = llama();
    config["rope_scaling"] = {{"type", type}, {"factor", 2.0}};
    expect_error(config, ErrorKind::kUnsupported, type);
  }
  expect_error(with(llama(), R"({"partial_rotary_factor": 0.5})"), ErrorKind::kUnsupported,
               "partial_rotary_factor");
  expect_error(
      with(llama(), R"({"rope_parameters": {"full_attention": {"rope_type": "default"}}})"),
      ErrorKind::kUnsupported, "layer type");
}

TEST(ModelConfig, ImpossibleValuesAreRefused) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"hidden_size": 0})", "hidden_size"},
      {R"({"hidden_size": -4096})", "hidden_size"},
      {R"({"hidden_size": 9223372036854775807})", "hidden_size"},
      {R"({"hidden_size": 1e30})", "hidden_size"},
      {R"({"hidden_size": "4096"})", "hidden_size"},
      {R"({"vocab_size": null})", "vocab_size"},
      {R"({"num_hidden_layers": 1000000})", "num_hidden_layers"},
      {R"({"num_key_value_heads": 5})", "5 key/value heads"},
      {R"({"num_key_value_heads": 64})", "64 key/value heads"},
      {R"({"num_key_value_heads": 0})", "num_key_value_heads"},
      {R"({"hidden_size": 4097})", "head_dim"},
      {R"({"head_dim": 63})", "odd"},
      {R"({"head_dim": 1048576})", "columns"},
      {R"({"rms_norm_eps": -1.0})", "rms_norm_eps"},
      {R"({"rope_theta": 0})", "rope_theta"},
      {R"({"eos_token_id": [1, "2"]})", "eos_token_id"},
      {R"({"eos_token_id": -5})", "eos_token_id"},
      {R"({"architectures": [3]})", "architectures"},
      {R"({"tie_word_embeddings": 1})", "tie_word_embeddings"},
      {R"({"rope_scaling": [1]})", "rope"},
      {R"({"rope_scaling": {"type": "linear"}})", "factor"},
      {R"({"rope_scaling": {"type": "linear", "factor": 0}})", "factor"},
      {R"({"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4,
           "high_freq_factor": 4}})",
       "high_freq_factor"},
      {R"({"rope_scaling": {"type": "factors", "factors": [1.0]}})", "factors"},
  };
  for (const auto& [changes, part] : cases) {
    expect_error(with(llama(), changes), ErrorKind::kCorruptFile, part);
  }
  expect_error(Json::parse("[]"), ErrorKind::kCorruptFile, "object");
  expect_error(Json::parse("{}"), ErrorKind::kCorruptFile, "model_type");
}

TEST(Rope, Llama3FrequenciesEqualTheFormula) {
  RopeConfig rope;
  rope.type = RopeType::kLlama3;
  rope.theta = 500000;
  rope.factor = 8;
  const std::vector<float> inv_freq = rope_inv_freq(rope, 128);
  const std::pair<size_t, float> expected[] = {
      {28, 0.003211445995f}, {29, 0.002166570764f}, {30, 0.001371893568f},
      {31, 8.567514129e-4f}, {32, 5.24846161e-4f},  {33, 3.126937504e-4f},
      {34, 1.785078128e-4f}, {35, 9.556212354e-5f}, {63, 3.068925989e-7f}};
  for (const auto& [i, value] : expected) EXPECT_NEAR(inv_freq[i], value, 3e-7f * value) << i;

  rope.factor = 32;  // Llama-3.2-1B
  const std::vector<float> small = rope_inv_freq(rope, 64);
  EXPECT_NEAR(small[15], 0.001290547928f, 1e-9f);
  EXPECT_NEAR(small[17], 9.708287803e-5f, 1e-10f);
}

TEST(Rope, FactorsDivideEachFrequency) {
  RopeConfig plain, scaled;
  scaled.type = RopeType::kFactors;
  scaled.factors = {1.0, 2.0, 4.0, 32.0};
  const std::vector<float> a = rope_inv_freq(plain, 8), b = rope_inv_freq(scaled, 8);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(b[i], a[i] / static_cast<float>(scaled.factors[i]));
}

}  // namespace
}  // namespace lowbit

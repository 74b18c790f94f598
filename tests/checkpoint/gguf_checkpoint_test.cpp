#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/checkpoint/ggml_types.h"
#include "lowbit/checkpoint/gguf.h"
#include "lowbit/checkpoint/gguf_config.h"
#include "lowbit/checkpoint/gguf_names.h"
#include "support/files.h"
#include "support/paths.h"

namespace lowbit {
namespace {

using test::TemporaryFolder;
using Metadata = std::vector<std::pair<std::string, GgufValue>>;

StoredTensor floats(const std::string& name, std::vector<int64_t> shape,
                    const std::vector<float>& values) {
  const auto* data = reinterpret_cast<const uint8_t*>(values.data());
  return {name, "F32", std::move(shape), Bytes::own({data, data + values.size() * 4})};
}

// Row n of an [rows][cols] matrix is all n.
StoredTensor numbered_rows(const std::string& name, int64_t rows, int64_t cols) {
  std::vector<float> values;
  for (int64_t row = 0; row < rows; ++row) values.insert(values.end(), cols, float(row));
  return floats(name, {rows, cols}, values);
}

StoredTensor ramp(const std::string& name, int64_t size) {
  std::vector<float> values(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return floats(name, {size}, values);
}

// One block of a model with 2 heads of 4 dimensions and one key/value head.
Metadata metadata(const std::string& arch) {
  return {{"general.architecture", gguf_string(arch)},
          {arch + ".block_count", gguf_u32(1)},
          {arch + ".context_length", gguf_u32(128)},
          {arch + ".embedding_length", gguf_u32(8)},
          {arch + ".feed_forward_length", gguf_u32(16)},
          {arch + ".attention.head_count", gguf_u32(2)},
          {arch + ".attention.head_count_kv", gguf_u32(1)},
          {arch + ".attention.layer_norm_rms_epsilon", gguf_f32(1e-5f)},
          {"tokenizer.ggml.bos_token_id", gguf_u32(1)},
          {"tokenizer.ggml.eos_token_id", gguf_u32(2)}};
}

std::vector<StoredTensor> tensors() {
  return {numbered_rows("token_embd.weight", 10, 8),  ramp("blk.0.attn_norm.weight", 8),
          numbered_rows("blk.0.attn_q.weight", 8, 8), ramp("blk.0.attn_q.bias", 8),
          numbered_rows("blk.0.attn_k.weight", 4, 8), numbered_rows("blk.0.attn_v.weight", 4, 8)};
}

std::vector<float> first_column(const QTensor& weight) {
  std::vector<float> column, row(static_cast<size_t>(weight.cols));
  for (int64_t i = 0; i < weight.rows; ++i) {
    dequantize_row(weight, i, row.data());
    column.push_back(row[0]);
  }
  return column;
}

TEST(GgufNames, TranslateBothWays) {
  for (const auto& [gguf, hf] : std::vector<std::pair<std::string, std::string>>{
           {"token_embd.weight", "model.embed_tokens.weight"},
           {"output.weight", "lm_head.weight"},
           {"output_norm.weight", "model.norm.weight"},
           {"blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"},
           {"blk.17.attn_k_norm.weight", "model.layers.17.self_attn.k_norm.weight"},
           {"blk.3.attn_v.bias", "model.layers.3.self_attn.v_proj.bias"},
           {"blk.3.ffn_norm.weight", "model.layers.3.post_attention_layernorm.weight"},
           {"blk.3.ffn_down.weight", "model.layers.3.mlp.down_proj.weight"}}) {
    EXPECT_EQ(hf_tensor_name(gguf), hf);
    EXPECT_EQ(gguf_tensor_name(hf), gguf);
  }
  for (const char* name :
       {"rope_freqs.weight", "blk.0.weight", "blk..attn_q.weight", "blk.0", "",
        "blk.-1.attn_q.weight", "blk.00.attn_q.weight", "blk.0.attn_q.scale",
        "blk.99999999999999999999.attn_q.weight", "blk.0.ffn_gate_exps.weight"}) {
    EXPECT_EQ(hf_tensor_name(name), "") << name;
  }
}

TEST(GgufNames, RowOrdersAreThePermutationOfTheConverterAndItsInverse) {
  // Two heads of 6: the converter reshapes to [heads, 2, 3] and swaps the last two.
  EXPECT_EQ(hf_rows_in_gguf_order(12, 6),
            (std::vector<int64_t>{0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11}));
  EXPECT_EQ(gguf_rows_in_hf_order(12, 6),
            (std::vector<int64_t>{0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11}));
}

TEST(GgufCheckpoint, SpeaksHuggingFacesNames) {
  const TemporaryFolder folder;
  write_gguf(folder / "m.gguf", metadata("llama"), tensors());
  const auto checkpoint = open_checkpoint(folder / "m.gguf");
  EXPECT_EQ(checkpoint->format(), "gguf");
  EXPECT_TRUE(checkpoint->contains("model.embed_tokens.weight"));
  EXPECT_FALSE(checkpoint->contains("lm_head.weight"));
  ASSERT_EQ(checkpoint->tensors().size(), 6u);
  const TensorInfo& info = checkpoint->tensors()[0];
  EXPECT_EQ(info.name, "model.embed_tokens.weight");
  EXPECT_EQ(info.shape, (std::vector<int64_t>{10, 8}));
  EXPECT_EQ(info.format, "F32");
  EXPECT_EQ(info.bytes, 320);
  EXPECT_EQ(checkpoint->load_vector("model.layers.0.input_layernorm.weight", 8),
            (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_NO_THROW(checkpoint->release("model.layers.0.self_attn.q_proj"));
}

TEST(GgufCheckpoint, PutsQueryAndKeyRowsOfLlamaBackIntoOrder) {
  const TemporaryFolder folder;
  write_gguf(folder / "m.gguf", metadata("llama"), tensors());
  const auto checkpoint = open_checkpoint(folder / "m.gguf");
  const LinearWeight q = checkpoint->load_linear("model.layers.0.self_attn.q_proj", 8, 8);
  const std::vector<float> order = {0, 2, 1, 3, 4, 6, 5, 7};
  EXPECT_EQ(first_column(q.weight), order);
  EXPECT_EQ(q.bias, order);
  EXPECT_EQ(first_column(checkpoint->load_linear("model.layers.0.self_attn.k_proj", 4, 8).weight),
            (std::vector<float>{0, 2, 1, 3}));
  EXPECT_EQ(first_column(checkpoint->load_linear("model.layers.0.self_attn.v_proj", 4, 8).weight),
            (std::vector<float>{0, 1, 2, 3}));
}

TEST(GgufCheckpoint, LeavesRowsOfQwenAlone) {
  for (const std::string arch : {"qwen2", "qwen3"}) {
    const TemporaryFolder folder;
    write_gguf(folder / "m.gguf", metadata(arch), tensors());
    const auto checkpoint = open_checkpoint(folder / "m.gguf");
    EXPECT_EQ(first_column(checkpoint->load_linear("model.layers.0.self_attn.q_proj", 8, 8).weight),
              (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}));
    EXPECT_EQ(checkpoint->config()["model_type"], arch);
    EXPECT_EQ(checkpoint->config()["attention_bias"], true);
  }
}

TEST(GgufCheckpoint, MakesAConfig) {
  const TemporaryFolder folder;
  std::vector<StoredTensor> stored = tensors();
  std::erase_if(stored, [](const StoredTensor& t) { return t.name == "blk.0.attn_q.bias"; });
  write_gguf(folder / "m.gguf", metadata("llama"), stored);
  const Json expected = {{"architectures", {"LlamaForCausalLM"}},
                         {"model_type", "llama"},
                         {"hidden_act", "silu"},
                         {"vocab_size", 10},
                         {"hidden_size", 8},
                         {"intermediate_size", 16},
                         {"num_hidden_layers", 1},
                         {"num_attention_heads", 2},
                         {"num_key_value_heads", 1},
                         {"head_dim", 4},
                         {"max_position_embeddings", 128},
                         {"rms_norm_eps", 1e-5},
                         {"rope_theta", 10000.0},
                         {"tie_word_embeddings", true},
                         {"attention_bias", false},
                         {"mlp_bias", false},
                         {"bos_token_id", 1},
                         {"eos_token_id", 2},
                         {"torch_dtype", "float16"}};
  EXPECT_EQ(open_checkpoint(folder / "m.gguf")->config(), expected);
}

std::string open_error(const std::string& path) {
  try {
    open_checkpoint(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(GgufCheckpoint, ErrorsNameTensorTypeAndArchitecture) {
  const TemporaryFolder folder;
  const std::string path = folder / "m.gguf";
  write_gguf(path, metadata("gemma"), tensors());
  EXPECT_NE(open_error(path).find("\"gemma\" is not supported; supported are llama, qwen2, qwen3"),
            std::string::npos);

  std::vector<StoredTensor> stored = tensors();
  stored.push_back(
      {"blk.0.ffn_up.weight", "IQ4_XS", {1, 256}, Bytes::own(std::vector<uint8_t>(136))});
  write_gguf(path, metadata("llama"), stored);
  EXPECT_NE(open_error(path).find("blk.0.ffn_up.weight is IQ4_XS"), std::string::npos);

  Metadata without = metadata("llama");
  std::erase_if(without, [](const auto& pair) { return pair.first == "llama.block_count"; });
  write_gguf(path, without, tensors());
  EXPECT_NE(open_error(path).find("\"llama.block_count\" is missing"), std::string::npos);

  write_gguf(path, metadata("llama"), {ramp("blk.0.attn_norm.weight", 8)});
  EXPECT_NE(open_error(path).find("token_embd.weight"), std::string::npos);
}

TEST(GgufCheckpoint, ShapesAndNumbersAreChecked) {
  const TemporaryFolder folder;
  std::vector<StoredTensor> stored = tensors();
  stored[1] = floats("blk.0.attn_norm.weight", {8}, {1, 2, 3, NAN, 5, 6, 7, 8});
  std::vector<uint8_t> block(18);
  block[1] = 0x7c;  // an infinite scale
  stored.push_back({"blk.0.ffn_up.weight", "Q4_0", {1, 32}, Bytes::own(block)});
  write_gguf(folder / "m.gguf", metadata("llama"), stored);
  const auto checkpoint = open_checkpoint(folder / "m.gguf");
  EXPECT_THROW(checkpoint->load_linear("model.layers.0.self_attn.q_proj", 8, 16), Error);
  EXPECT_THROW(checkpoint->load_linear("model.layers.0.mlp.up_proj", 1, 32), Error);
  EXPECT_THROW(checkpoint->load_linear("model.layers.0.mlp.gate_proj", 1, 32), Error);
  EXPECT_THROW(checkpoint->load_vector("model.layers.0.input_layernorm.weight", 8), Error);
  EXPECT_THROW(checkpoint->load_vector("model.layers.0.input_layernorm.weight", 4), Error);
}

TEST(GgufCheckpoint, FindsLlama3ParametersInRopeFactors) {
  GgufMetadata values;
  for (auto& [key, value] : metadata("llama")) values.values.emplace(key, value);
  values.values.at("llama.embedding_length") = gguf_u32(2048);
  values.values.at("llama.attention.head_count") = gguf_u32(32);
  values.values["llama.rope.freq_base"] = gguf_f32(500000.f);
  GgufFacts facts;
  facts.vocab_size = 10;
  // Llama 3.2 1B: i < 15 unchanged, 15 to 17 between, the rest divided by 32.
  facts.rope_factors.assign(32, 1.0);
  std::fill(facts.rope_factors.begin() + 18, facts.rope_factors.end(), 32.0);
  const double inv_freq[3] = {0.001290547928, 4.295567966e-4, 9.708287803e-5};
  for (int i = 0; i < 3; ++i) {
    facts.rope_factors[15 + i] = std::pow(500000.0, -(15.0 + i) / 32) / inv_freq[i];
  }
  const Json expected = {{"rope_type", "llama3"},
                         {"factor", 32.0},
                         {"low_freq_factor", 1.0},
                         {"high_freq_factor", 4.0},
                         {"original_max_position_embeddings", 8192}};
  EXPECT_EQ(gguf_config(values, facts)["rope_scaling"], expected);
  facts.rope_factors[15] *= 1.01;
  EXPECT_EQ(gguf_config(values, facts)["rope_scaling"]["rope_type"], "factors");
  EXPECT_EQ(gguf_config(values, facts)["rope_scaling"]["factors"].size(), 32u);
  facts.rope_factors.assign(32, 1.0);
  EXPECT_FALSE(gguf_config(values, facts).contains("rope_scaling"));
}

TEST(GgufCheckpoint, RopeTypesAreNamed) {
  GgufMetadata values;
  for (auto& [key, value] : metadata("llama")) values.values.emplace(key, value);
  values.values["llama.rope.scaling.type"] = gguf_string("linear");
  values.values["llama.rope.scaling.factor"] = gguf_f32(4.f);
  const Json linear = {{"rope_type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(gguf_config(values, {})["rope_scaling"], linear);
  values.values["llama.rope.scaling.type"] = gguf_string("yarn");
  EXPECT_EQ(gguf_config(values, {})["rope_scaling"]["rope_type"], "yarn");
  values.values["llama.rope.scaling.factor"] = gguf_f32(NAN);
  EXPECT_THROW(gguf_config(values, {}), Error);
}

TEST(GgufCheckpoint, ImpossibleMetadataIsAnError) {
  for (const char* key :
       {"block_count", "context_length", "embedding_length", "feed_forward_length",
        "attention.head_count", "attention.head_count_kv"}) {
    for (const uint32_t value : {0u, 0x80000000u, 0xffffffffu}) {
      GgufMetadata values;
      for (auto& [name, held] : metadata("llama")) values.values.emplace(name, held);
      values.values.at(std::string("llama.") + key) = gguf_u32(value);
      EXPECT_THROW(gguf_config(values, {}), Error) << key << " " << value;
    }
  }
}

TEST(GgufCheckpoint, ReadsSplitFiles) {
  const TemporaryFolder folder;
  std::vector<StoredTensor> all = tensors();
  Metadata first = metadata("llama");
  first.emplace_back("split.count", gguf_u32(2));
  first.emplace_back("split.no", gguf_u32(0));
  write_gguf(folder / "m-00001-of-00002.gguf", first, {all.begin(), all.begin() + 3});
  EXPECT_NE(open_error(folder / "m-00001-of-00002.gguf").find("00002-of-00002.gguf is missing"),
            std::string::npos);
  const Metadata second = {{"split.count", gguf_u32(2)}, {"split.no", gguf_u32(1)}};
  write_gguf(folder / "m-00002-of-00002.gguf", second, {all.begin() + 3, all.end()});
  const auto checkpoint = open_checkpoint(folder.path());  // the only model of the folder
  EXPECT_EQ(checkpoint->tensors().size(), all.size());
  EXPECT_EQ(checkpoint->load_linear("model.layers.0.self_attn.q_proj", 8, 8).bias.size(), 8u);
  EXPECT_NE(open_error(folder / "m-00002-of-00002.gguf").find("name the first"), std::string::npos);
  write_gguf(folder / "m-00002-of-00002.gguf", second, all);
  EXPECT_NE(open_error(folder.path()).find("is in two parts"), std::string::npos);
}

TEST(GgufCheckpoint, AFileThatShrinksWhileInUseIsAnError) {
  const TemporaryFolder folder;
  std::vector<StoredTensor> stored = tensors();
  stored.push_back(numbered_rows("blk.0.ffn_up.weight", 16, 8192));
  write_gguf(folder / "m.gguf", metadata("llama"), stored);
  const auto checkpoint = open_checkpoint(folder / "m.gguf");
  const LinearWeight up = checkpoint->load_linear("model.layers.0.mlp.up_proj", 16, 8192);
  fs::resize_file(folder / "m.gguf", 8192);
  dequantize(up.weight);  // reads zeros instead of ending the program
  EXPECT_THROW(checkpoint->release("model.layers.0.mlp.up_proj"), Error);
  EXPECT_THROW(checkpoint->load_linear("model.layers.0.mlp.up_proj", 16, 8192), Error);
}

TEST(GgufCheckpoint, ReadsEveryTensorOfTheRealModel) {
  const std::string path = test::smollm2();
  LOWBIT_SKIP_WITHOUT(path, "the SmolLM2 file");
  const auto checkpoint = open_checkpoint(path);
  EXPECT_EQ(checkpoint->config()["hidden_size"], 576);
  EXPECT_EQ(checkpoint->config()["rms_norm_eps"], 1e-5);
  EXPECT_EQ(checkpoint->tensors().size(), 272u);
  int64_t parameters = 0;
  for (const TensorInfo& tensor : checkpoint->tensors()) {
    const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
    if (tensor.shape.size() == 1) {
      parameters += tensor.shape[0];
      EXPECT_NO_THROW(checkpoint->load_vector(tensor.name, tensor.shape[0]));
    } else {
      parameters += tensor.shape[0] * tensor.shape[1];
      const LinearWeight linear = checkpoint->load_linear(module, tensor.shape[0], tensor.shape[1]);
      EXPECT_EQ(linear.weight.scheme.group_size, 32);
    }
    checkpoint->release(module);
  }
  EXPECT_EQ(parameters, 134'515'008);
}

}  // namespace
}  // namespace lowbit

// Whole runs of quantize_checkpoint: what is written is read back by lowbit with the same weights.
#include "lowbit/quantize/pipeline.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/checkpoint/ggml_types.h"
#include "lowbit/quantize/row_encoder.h"
#include "lowbit/quantize/rtn.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

class Pipeline : public testing::Test {
 protected:
  void SetUp() override { write_model(test::tiny_folder_config()); }

  void write_model(const Json& config) {
    test::write_tiny_folder(model(), config);
    config_ = parse_model_config(config, nullptr, "test");
  }
  std::string model() const { return folder_ / "model"; }
  std::string out(const std::string& name = "out") const { return folder_ / name; }

  static QuantizeOptions options(const std::string& format, int bits = 4, int64_t group_size = 32,
                                 bool symmetric = true) {
    QuantizeOptions options;
    options.format = format;
    options.bits = bits;
    options.group_size = group_size;
    options.symmetric = symmetric;
    options.threads = 1;
    return options;
  }

  std::vector<LinearSlot> linears() const {
    std::vector<LinearSlot> all;
    for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
      for (const auto& group : block_linears(config_, i)) {
        all.insert(all.end(), group.begin(), group.end());
      }
    }
    return all;
  }

  static std::vector<float> weight(const std::string& path, const LinearSlot& slot) {
    return dequantize(open_checkpoint(path)->load_linear(slot.module, slot.rows, slot.cols).weight);
  }

  std::string error_of(const QuantizeOptions& options, const std::string& to) const {
    try {
      quantize_checkpoint(model(), to, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  test::TemporaryFolder folder_;
  ModelConfig config_;
};

TEST_F(Pipeline, EveryFormatIsReadBackWithTheWeightsOfItsMethod) {
  const auto source = open_checkpoint(model());
  for (const char* format : {"gptq", "compressed-tensors"}) {
    for (int bits = 2; bits <= 8; ++bits) {
      if (format == std::string("gptq") && bits != 2 && bits != 3 && bits != 4 && bits != 8)
        continue;
      for (const int64_t group_size : {32, -1}) {
        for (const bool symmetric : {true, false}) {
          SCOPED_TRACE(concat(format, " ", bits, " ", group_size, " ", symmetric));
          QuantizeOptions chosen = options(format, bits, group_size, symmetric);
          chosen.force = true;
          const QuantizeSummary summary = quantize_checkpoint(model(), out(), chosen);
          EXPECT_EQ(summary.linears, 14);
          EXPECT_GT(summary.bits_per_weight, bits);
          EXPECT_LT(summary.bits_per_weight, bits + 2);
          const auto made = open_checkpoint(out());
          EXPECT_EQ(made->format(), format);
          for (const LinearSlot& slot : linears()) {
            const auto values =
                dequantize(source->load_linear(slot.module, slot.rows, slot.cols).weight);
            const QTensor expected =
                Rtn().quantize({slot.module, slot.rows, slot.cols, values, nullptr},
                               int_scheme(bits, group_size > 0 ? group_size : slot.cols,
                                          symmetric ? Zero::kNone : Zero::kInt));
            const QTensor read = made->load_linear(slot.module, slot.rows, slot.cols).weight;
            EXPECT_EQ(read.scheme, expected.scheme);
            EXPECT_EQ(dequantize(read), dequantize(expected)) << slot.module;
          }
        }
      }
    }
  }
}

TEST_F(Pipeline, WhatIsNotQuantizedIsTheSame) {
  for (const char* format : {"gptq", "compressed-tensors", "safetensors"}) {
    SCOPED_TRACE(format);
    quantize_checkpoint(model(), out(format), options(format));
    const auto source = open_checkpoint(model()), made = open_checkpoint(out(format));
    for (const char* module : {"model.embed_tokens", "lm_head"}) {
      EXPECT_EQ(dequantize(made->load_linear(module, 264, 128).weight),
                dequantize(source->load_linear(module, 264, 128).weight));
    }
    for (const char* norm : {"model.norm.weight", "model.layers.1.input_layernorm.weight"}) {
      EXPECT_EQ(made->load_vector(norm, 128), source->load_vector(norm, 128));
    }
    for (const char* file : {"tokenizer.json", "tokenizer_config.json"}) {
      EXPECT_EQ(read_file(fs::path(out(format)) / file, 1 << 20),
                read_file(fs::path(model()) / file, 1 << 20));
    }
    EXPECT_TRUE(fs::exists(fs::path(out(format)) / "README.md"));
    EXPECT_FALSE(fs::exists(out(format) + ".partial"));
  }
}

TEST_F(Pipeline, SkippedModulesStayInSixteenBits) {
  for (const char* format : {"gptq", "compressed-tensors", "gguf"}) {
    QuantizeOptions chosen = options(format);
    chosen.skip = {"lm_head", "down_proj", "model.layers.0.self_attn.q_proj"};
    EXPECT_EQ(quantize_checkpoint(model(), out(format), chosen).linears, 11);
    const std::string path =
        format == std::string("gguf") ? out(format) + "/model.gguf" : out(format);
    const auto made = open_checkpoint(path);
    EXPECT_TRUE(made->load_linear("model.layers.1.mlp.down_proj", 128, 160).weight.scheme.dense());
    EXPECT_FALSE(made->load_linear("model.layers.1.mlp.up_proj", 160, 128).weight.scheme.dense());
  }
  QuantizeOptions wrong = options("gptq");
  wrong.skip = {"no_such_proj"};
  EXPECT_NE(error_of(wrong, out()).find("no_such_proj"), std::string::npos);
}

TEST_F(Pipeline, TheHeadIsQuantizedIfNotSkipped) {
  QuantizeOptions chosen = options("compressed-tensors");
  chosen.skip = {};
  EXPECT_EQ(quantize_checkpoint(model(), out(), chosen).linears, 15);
  EXPECT_FALSE(open_checkpoint(out())->load_linear("lm_head", 264, 128).weight.scheme.dense());
}

struct GgufCase {
  const char* format;
  int bits;
  bool symmetric;
  const char* type;
};

TEST_F(Pipeline, GgufHoldsGgmlsBlocks) {
  const auto source = open_checkpoint(model());
  for (const GgufCase& c : {GgufCase{"gguf", 4, true, "Q4_0"},
                            {"gguf", 4, false, "Q4_1"},
                            {"gguf", 8, true, "Q8_0"},
                            {"gguf:f16", 4, true, "F16"},
                            {"gguf:q4_1", 4, true, "Q4_1"}}) {
    SCOPED_TRACE(concat(c.format, " ", c.type));
    QuantizeOptions chosen = options(c.format, c.bits, 0, c.symmetric);
    chosen.force = true;
    const std::string file = out("m.gguf");
    quantize_checkpoint(model(), file, chosen);
    const auto made = open_checkpoint(file);
    const RowEncoder& encoder = row_encoder(c.type);
    for (const LinearSlot& slot : linears()) {
      const auto values = dequantize(source->load_linear(slot.module, slot.rows, slot.cols).weight);
      std::vector<uint8_t> blocks(slot.rows * encoder.row_bytes(slot.cols));
      for (int64_t row = 0; row < slot.rows; ++row) {
        encoder.encode(std::span(values).subspan(row * slot.cols, slot.cols),
                       blocks.data() + row * encoder.row_bytes(slot.cols));
      }
      const QTensor expected =
          ggml_type(c.type)->read(Bytes::own(std::move(blocks)), slot.rows, slot.cols);
      EXPECT_EQ(dequantize(made->load_linear(slot.module, slot.rows, slot.cols).weight),
                dequantize(expected))
          << slot.module;
    }
    const QTensor head = made->load_linear("lm_head", 264, 128).weight;
    EXPECT_EQ(head.scheme.dense(), std::string(c.type) == "F16");
    EXPECT_EQ(made->load_vector("model.norm.weight", 128),
              source->load_vector("model.norm.weight", 128));
    EXPECT_EQ(made->tokenizer().vocab.size(), 264u);
  }
}

TEST_F(Pipeline, AGgufFileBecomesAFolderAgain) {
  const std::string file = out("m.gguf");
  quantize_checkpoint(model(), file, options("gguf:f16", 4, 0));
  quantize_checkpoint(file, out(), options("safetensors"));
  for (const LinearSlot& slot : linears()) {
    EXPECT_EQ(weight(out(), slot), weight(model(), slot)) << slot.module;
  }
  const auto made = open_checkpoint(out());
  const ModelConfig config = parse_model_config(made->config(), made->generation_config(), "made");
  EXPECT_EQ(config.hidden_size, config_.hidden_size);
  EXPECT_EQ(config.head_dim, config_.head_dim);
  EXPECT_EQ(config.rope.theta, config_.rope.theta);
  EXPECT_EQ(made->tokenizer().vocab, open_checkpoint(model())->tokenizer().vocab);
}

TEST_F(Pipeline, LargeModelsAreCutIntoShards) {
  QuantizeOptions chosen = options("gptq");
  quantize_checkpoint(model(), out("whole"), chosen);
  chosen.shard_bytes = 30'000;
  quantize_checkpoint(model(), out("shards"), chosen);
  const Json index = read_json(out("shards") + "/model.safetensors.index.json");
  EXPECT_TRUE(fs::exists(out("shards") + "/" +
                         index["weight_map"]["model.norm.weight"].get<std::string>()));
  for (const LinearSlot& slot : linears()) {
    EXPECT_EQ(weight(out("shards"), slot), weight(out("whole"), slot));
  }
}

TEST_F(Pipeline, BytesDoNotDependOnThreads) {
  for (const char* format : {"gptq", "gguf"}) {
    QuantizeOptions chosen = options(format);
    quantize_checkpoint(model(), out("one"), chosen);
    chosen.threads = 3;
    chosen.force = true;
    quantize_checkpoint(model(), out("three"), chosen);
    EXPECT_EQ(test::snapshot(out("one")), test::snapshot(out("three")));
    fs::remove_all(out("one"));
  }
}

TEST_F(Pipeline, FamiliesWithBiasAndHeadNormsSurviveGguf) {
  Json config = test::tiny_folder_config();
  config["model_type"] = "qwen2";
  config["architectures"] = {"Qwen2ForCausalLM"};
  write_model(config);
  quantize_checkpoint(model(), out("m.gguf"), options("gguf:f16", 4, 0));
  quantize_checkpoint(model(), out("ct"), options("compressed-tensors"));
  const auto source = open_checkpoint(model());
  for (const std::string& path : {out("m.gguf"), out("ct")}) {
    const auto made = open_checkpoint(path);
    const std::string module = "model.layers.1.self_attn.q_proj";
    EXPECT_EQ(made->load_linear(module, 128, 128).bias, source->load_linear(module, 128, 128).bias);
  }
}

TEST_F(Pipeline, ImpossibleWishesAreRefusedWithThePossible) {
  const std::vector<std::pair<QuantizeOptions, std::string>> cases = {
      {options("gptq", 4, 128), "32"},  // 160 columns
      {options("gptq", 5), "compressed-tensors"},
      {options("gguf", 7, 0), "q4_0"},
      {options("gguf", 8, 0, false), "q8_0"},
      {options("gguf", 4, 64), "32"},
      {options("gguf:q9_k", 4, 0), "q4_1"},
      {options("gguf:q6_k", 4, 64), "16"},
      {options("safetensors:f8"), "bf16"},
      {options("zip"), "gptq"},
      {options("gptq", 9), "2 to 8"},
      {options("gptq", 4, 48), "128"}};
  for (const auto& [chosen, hint] : cases) {
    const std::string error = error_of(chosen, out());
    EXPECT_NE(error.find(hint), std::string::npos) << chosen.format << ": " << error;
    EXPECT_FALSE(fs::exists(out() + ".partial")) << error;
  }
}

TEST_F(Pipeline, PlacesThatWouldDoHarmAreRefused) {
  const QuantizeOptions chosen = options("gptq");
  EXPECT_NE(error_of(chosen, model()).find("itself"), std::string::npos);
  EXPECT_NE(error_of(chosen, model() + "/out").find("inside"), std::string::npos);
  EXPECT_NE(error_of(chosen, folder_.path()).find("contains"), std::string::npos);
  test::write_text(out() + "/file", "precious");
  EXPECT_NE(error_of(chosen, out()).find("--force"), std::string::npos);
  EXPECT_EQ(read_file(out() + "/file", 100), "precious");
  QuantizeOptions force = chosen;
  force.force = true;
  quantize_checkpoint(model(), out(), force);
  EXPECT_FALSE(fs::exists(out() + "/file"));
  test::write_text(out("other.partial") + "/mine", "precious");
  EXPECT_NE(error_of(chosen, out("other")).find("mine"), std::string::npos);
}

TEST_F(Pipeline, SaysWhatComputesOnADevice) {
  QuantizeOptions chosen = options("");
  chosen.backend = "cuda";
  chosen.method = "nf4";
  EXPECT_NE(error_of(chosen, out()).find("rtn, rtn-search, hqq, gptq"), std::string::npos);
  chosen.method = "rtn";
  chosen.format = "gguf:q4_0";
  EXPECT_NE(error_of(chosen, out()).find("on the host only"), std::string::npos);
  chosen.format = "gptq";
  chosen.backend = "tpu";
  EXPECT_NE(error_of(chosen, out()).find("cpu, cuda"), std::string::npos);
}

}  // namespace
}  // namespace lowbit

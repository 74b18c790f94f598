// GGUF files of K-quants, mixes, and ternary and binary types, through the whole pipeline.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/checkpoint/gguf_names.h"
#include "lowbit/model/model.h"
#include "lowbit/quantize/absmean.h"
#include "lowbit/quantize/gguf_recipe.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/verify/verify.h"
#include "support/paths.h"
#include "support/random.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

// "Q4_K*2 Q6_K*1" is {"Q4_K", "Q4_K", "Q6_K"}.
std::vector<std::string> expand(const std::string& text) {
  std::vector<std::string> types;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const size_t star = word.find('*');
    types.insert(types.end(), std::stoul(word.substr(star + 1)), word.substr(0, star));
  }
  return types;
}

// See tools/golden/gguf_mixes.py.
TEST(GgufRecipe, MixesAndSubstitutesAreThoseOfLlamaQuantize) {
  const Json golden =
      parse_json(read_file(test::golden("quantize/gguf_mixes.json"), 1 << 20), "mixes");
  int compared = 0;
  for (const Json& item : golden) {
    const Json& model = item["model"];
    ModelConfig config;
    config.num_hidden_layers = model["layers"];
    config.num_attention_heads = model["heads"];
    config.num_key_value_heads = model["kv_heads"];
    config.hidden_size = model["hidden"];
    config.head_dim = config.hidden_size / config.num_attention_heads;
    config.intermediate_size = model["inter"];
    config.vocab_size = 32;
    config.tie_word_embeddings = model["tied"];
    const Plan plan = make_plan(config, {});
    for (const auto& [name, tensors] : item["types"].items()) {
      const GgufRecipe& recipe = gguf_recipe(name);
      std::map<std::string, std::vector<std::string>> made;
      for (const PlanUnit& unit : plan.units) {
        for (const PlanItem& matrix : unit.items) {
          if (matrix.kind == PlanItem::Kind::kVector) continue;
          std::string key = gguf_tensor_name(matrix.name + ".weight");
          key.resize(key.size() - std::string(".weight").size());
          made[key.substr(key.rfind('.') + 1)].push_back(
              ggml_type_for_columns(wanted_ggml_type(recipe, matrix, config), matrix.cols));
        }
      }
      for (const auto& [tensor, types] : tensors.items()) {
        EXPECT_EQ(made[tensor], expand(types.get<std::string>())) << name << " " << tensor;
        ++compared;
      }
    }
  }
  EXPECT_EQ(compared, 8 * 9 + 8 * 8);
}

TEST(GgufRecipe, EveryTypeHasASubstituteForAnyColumns) {
  for (const GgufRecipe& recipe : gguf_recipes()) {
    for (const int64_t cols : {1, 32, 64, 96, 128, 256, 576}) {
      EXPECT_NO_THROW(ggml_type_for_columns(recipe.type, cols)) << recipe.name << " " << cols;
    }
  }
  EXPECT_EQ(ggml_type_for_columns("TQ1_0", 576), "Q2_0");
  EXPECT_EQ(ggml_type_for_columns("Q1_0", 576), "Q2_0");
  EXPECT_EQ(ggml_type_for_columns("TQ1_0", 96), "F16");
  EXPECT_EQ(ggml_type_for_columns("Q4_K", 8), "F16");
}

class GgufTypes : public testing::Test {
 protected:
  // down_proj has 256 columns, the others 64.
  void SetUp() override {
    document_ = test::tinier_folder_config();
    document_["intermediate_size"] = 256;
    test::write_tiny_folder(model(), document_);
    config_ = parse_model_config(document_, nullptr, "test");
  }
  std::string model() const { return folder_ / "model"; }
  std::string out() const { return folder_ / "out.gguf"; }

  QuantizeSummary make(const std::string& format, const std::string& method = "rtn") {
    QuantizeOptions options;
    options.method = method;
    options.format = format;
    options.threads = 1;
    options.force = true;
    return quantize_checkpoint(model(), out(), options);
  }
  QTensor stored(const std::string& path, const std::string& end, int64_t rows, int64_t cols) {
    return open_checkpoint(path)->load_linear("model.layers.1." + end, rows, cols).weight;
  }
  // What `verify` finds, and modules whose type its second reader does not know.
  std::string problems() {
    std::string text;
    const VerifyReport report = verify_checkpoint(out(), model(), 1);
    for (const std::string& problem : report.problems) text += problem;
    for (const VerifyReport::Layer& layer : report.layers) {
      if (!layer.read_twice) text += concat(layer.module, " (", layer.scheme, ") was read once; ");
    }
    return text;
  }

  test::TemporaryFolder folder_;
  Json document_;
  ModelConfig config_;
};

TEST_F(GgufTypes, AreWrittenReadTwiceAndCloseToTheOriginal) {
  const std::map<std::string, double> largest_error = {
      {"q5_0", 0.07},  {"q5_1", 0.07},  {"iq4_nl", 0.11}, {"q2_k", 0.35},  {"q3_k", 0.2},
      {"q4_k", 0.1},   {"q5_k", 0.05},  {"q6_k", 0.025},  {"q2_k_m", 0.2}, {"q3_k_m", 0.1},
      {"q4_k_s", 0.1}, {"q4_k_m", 0.1}, {"q5_k_m", 0.05}};
  for (const auto& [format, limit] : largest_error) {
    SCOPED_TRACE(format);
    make("gguf:" + format);
    const QTensor weight = stored(out(), "mlp.down_proj", 64, 256);
    EXPECT_FALSE(weight.scheme.dense());
    EXPECT_LT(test::relative_error(dequantize(weight),
                                   dequantize(stored(model(), "mlp.down_proj", 64, 256))),
              limit);
    EXPECT_EQ(problems(), "");
  }
}

TEST_F(GgufTypes, SubstitutesAreSaid) {
  const QuantizeSummary summary = make("gguf:q4_k");
  ASSERT_EQ(summary.notices.size(), 1u);
  EXPECT_NE(summary.notices[0].find("12 matrices are Q5_0 instead of Q4_K"), std::string::npos)
      << summary.notices[0];
  EXPECT_EQ(stored(out(), "mlp.up_proj", 256, 64).scheme, int_scheme(5, 32));
  EXPECT_EQ(stored(out(), "mlp.down_proj", 64, 256).scheme, int_scheme(4, 32, Zero::kOffset));
  EXPECT_TRUE(make("gguf:q5_0").notices.empty());
}

TEST_F(GgufTypes, SearchedScalesAreCloser) {
  const std::vector<float> values = dequantize(stored(model(), "mlp.up_proj", 256, 64));
  make("gguf:q4_k_m");
  const std::vector<float> plain = dequantize(stored(out(), "mlp.up_proj", 256, 64));
  make("gguf:q4_k_m", "rtn-search");
  const std::vector<float> searched = dequantize(stored(out(), "mlp.up_proj", 256, 64));
  EXPECT_LT(test::relative_error(searched, values), 0.97 * test::relative_error(plain, values));
  EXPECT_EQ(problems(), "");
}

TEST_F(GgufTypes, TernaryAndBinaryWeightsAreHeldWithoutLoss) {
  for (const auto& [format, method] : std::vector<std::pair<std::string, std::string>>{
           {"gguf", "ternary"}, {"gguf:tq1_0", "ternary"}, {"gguf:q2_0", "ternary"}}) {
    SCOPED_TRACE(format);
    make(format, method);
    for (const auto& [end, rows, cols] :
         {std::tuple{"mlp.down_proj", 64, 256}, {"mlp.up_proj", 256, 64}}) {
      const std::vector<float> values = dequantize(stored(model(), end, rows, cols));
      const QTensor expected = Ternary().quantize({end, rows, cols, values, nullptr},
                                                  for_shape({Code::kInt, 2, 0, 0}, rows, cols));
      EXPECT_EQ(dequantize(stored(out(), end, rows, cols)), dequantize(expected)) << end;
    }
    EXPECT_EQ(problems(), "");
  }
  make("gguf", "int1");
  const std::vector<float> values = dequantize(stored(out(), "mlp.down_proj", 64, 256));
  for (int64_t k = 0; k < 256; ++k)
    EXPECT_EQ(std::fabs(values[k]), std::fabs(values[k / 128 * 128]));
  EXPECT_EQ(problems(), "");
}

TEST_F(GgufTypes, MethodsAndTypesThatDoNotMatchAreRefused) {
  const auto error_of = [&](const std::string& format, const std::string& method, int64_t group) {
    QuantizeOptions options;
    options.method = method;
    options.format = format;
    options.group_size = group;
    options.threads = 1;
    try {
      quantize_checkpoint(model(), folder_ / "no.gguf", options);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(error_of("gguf:tq2_0", "rtn", 0).find("--method ternary"), std::string::npos);
  EXPECT_NE(error_of("gguf:q4_0", "ternary", 0).find("tq1_0"), std::string::npos);
  EXPECT_NE(error_of("gguf", "nf4", 0).find("nf4"), std::string::npos);
  EXPECT_NE(error_of("gguf:tq2_0", "ternary", 64).find("q2_0"), std::string::npos);
  EXPECT_NE(error_of("gguf:q2_0", "ternary", 128).find("128"), std::string::npos);
  EXPECT_EQ(error_of("gguf:q2_0", "ternary", 64), "");
}

}  // namespace
}  // namespace lowbit

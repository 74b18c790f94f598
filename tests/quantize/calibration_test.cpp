// Calibrated methods through the whole pipeline: data in, blocks in order, kill -9 and on.
#include "lowbit/quantize/calibration.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/quantize/act_scales.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/fault.h"
#include "lowbit/quantize/learning.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/quantize/smoothquant.h"
#include "support/quantize_runs.h"
#include "support/random.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

std::string some_text(int64_t words) {
  test::Random random(7);
  std::string text;
  for (int64_t i = 0; i < words; ++i) {
    for (int64_t letters = 1 + random.below(9); letters > 0; --letters) {
      text += static_cast<char>('a' + random.below(26));
    }
    text += random.below(12) == 0 ? ".\n" : " ";
  }
  return text;
}

class Calibration : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_folder(model(), test::tinier_folder_config());
    test::write_text(folder_ / "text.txt", some_text(400));
  }
  void TearDown() override { fault_hook = nullptr; }

  std::string model() const { return folder_ / "model"; }
  std::string out() const { return folder_ / "out"; }
  Tokenizer tokenizer() const { return Tokenizer(open_checkpoint(model())->tokenizer()); }

  QuantizeOptions options(const std::string& method) const {
    QuantizeOptions options;
    options.method = method;
    options.group_size = 32;
    options.threads = 1;
    options.commit_seconds = 0;
    options.calibration = {.path = folder_ / "text.txt", .samples = 3, .seqlen = 32};
    return options;
  }

  std::map<std::string, std::string> made(const QuantizeOptions& options) const {
    fs::remove_all(out());
    quantize_checkpoint(model(), out(), options);
    return test::snapshot(out());
  }

  std::string error_of(const QuantizeOptions& options) const {
    return test::quantize_error(model(), out(), options);
  }

  std::string data_error(const std::string& file, const std::string& content) const {
    test::write_text(folder_ / file, content);
    try {
      load_calibration({.path = folder_ / file, .samples = 1, .seqlen = 8}, tokenizer(), 64);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  bool run_killed(int points, const QuantizeOptions& options) {
    return test::run_killed(points, model(), out(), options);
  }

  test::TemporaryFolder folder_;
};

TEST_F(Calibration, CutsTheFirstWindowsOfATextWithoutSpecialTokens) {
  const CalibrationData data = load_calibration(options("gptq").calibration, tokenizer(), 64);
  ASSERT_EQ(data.windows.size(), 3u);
  std::vector<int32_t> joined;
  for (const auto& window : data.windows) {
    EXPECT_EQ(window.size(), 32u);
    joined.insert(joined.end(), window.begin(), window.end());
  }
  EXPECT_EQ(tokenizer().decode(joined), some_text(400).substr(0, 96));
}

TEST_F(Calibration, ReadsLinesAndFolders) {
  test::write_text(folder_ / "texts/b.jsonl", "{\"text\": \"third\"}\n\n{\"text\": \"fourth\"}\n");
  test::write_text(folder_ / "texts/a.txt", "first\nsecond");
  test::write_text(folder_ / "texts/other.bin", "\xff\xff");
  EXPECT_EQ(calibration_text(folder_ / "texts"), "first\nsecond\n\nthird\n\nfourth");
  EXPECT_EQ(calibration_text(folder_ / "texts/b.jsonl"), "third\n\nfourth");
}

TEST_F(Calibration, DrawsTheSameWindowsFromTheSameSeed) {
  CalibrationOptions chosen = options("gptq").calibration;
  const std::string first = load_calibration(chosen, tokenizer(), 64).sha256;
  chosen.seed = 1;
  const std::string one = load_calibration(chosen, tokenizer(), 64).sha256;
  EXPECT_EQ(load_calibration(chosen, tokenizer(), 64).sha256, one);
  EXPECT_NE(one, first);
  chosen.seed = 2;
  EXPECT_NE(load_calibration(chosen, tokenizer(), 64).sha256, one);
}

TEST_F(Calibration, RefusesTextThatWillNotDo) {
  EXPECT_NE(data_error("empty.txt", " \n ").find("holds no text"), std::string::npos);
  EXPECT_NE(data_error("bad.txt", "ab\xff").find("UTF-8 (byte 2)"), std::string::npos);
  EXPECT_NE(data_error("short.txt", "abc").find("3 tokens, which make 0 samples of 8"),
            std::string::npos);
  EXPECT_NE(data_error("bad.jsonl", "{\"text\": \"a\"}\n{\"content\": 1}").find("line 2"),
            std::string::npos);
  fs::create_directories(folder_ / "none");
  QuantizeOptions chosen = options("gptq");
  chosen.calibration.path = folder_ / "none";
  EXPECT_NE(error_of(chosen).find("without .txt and .jsonl"), std::string::npos);
  chosen.calibration.path = folder_ / "absent";
  EXPECT_NE(error_of(chosen).find("does not exist"), std::string::npos);
  chosen.calibration.path.clear();
  EXPECT_NE(error_of(chosen).find("--calibration FILE"), std::string::npos);
  chosen = options("awq");
  chosen.calibration.seqlen = 65;
  EXPECT_NE(error_of(chosen).find("made for 64 positions"), std::string::npos);
  chosen = options("awq");
  chosen.calibration.samples = 1000;
  EXPECT_NE(error_of(chosen).find("not 1000"), std::string::npos);
  chosen = options("gptq");
  chosen.format = "gguf:q4_k";
  EXPECT_NE(error_of(chosen).find("made by --method rtn"), std::string::npos);
  EXPECT_FALSE(fs::exists(out() + ".partial"));
}

TEST_F(Calibration, EveryMethodFillsEveryFormatThatHoldsIt) {
  for (const char* method : {"gptq", "awq"}) {
    for (const char* format :
         {"gptq", "awq", "compressed-tensors", "auto-round", "auto-round-awq"}) {
      SCOPED_TRACE(concat(method, " ", format));
      QuantizeOptions chosen = options(method);
      chosen.format = format;
      chosen.symmetric = false;
      made(chosen);
      const auto checkpoint = open_checkpoint(out());
      const QTensor weight = checkpoint->load_linear("model.layers.1.mlp.down_proj", 64, 96).weight;
      EXPECT_EQ(weight.scheme, int_scheme(4, 32, Zero::kInt));
      EXPECT_EQ(checkpoint->load_linear("lm_head", 264, 64).weight.scheme.bits, 16);
    }
  }
}

TEST_F(Calibration, KeepsTheActivationOrderWhereTheFormatCan) {
  QuantizeOptions chosen = options("gptq");
  chosen.method_options.gptq.act_order = ActOrder::kKept;
  for (const char* format : {"gptq", "compressed-tensors"}) {
    chosen.format = format;
    made(chosen);
    const QTensor weight =
        open_checkpoint(out())->load_linear("model.layers.1.mlp.down_proj", 64, 96).weight;
    EXPECT_FALSE(weight.input_order.empty()) << format;
  }
  chosen.format = "awq";
  chosen.symmetric = false;
  EXPECT_NE(error_of(chosen).find("--act-order static"), std::string::npos);
  chosen.method_options.gptq.act_order = ActOrder::kStatic;
  made(chosen);
}

TEST_F(Calibration, BytesDependNeitherOnThreadsNorOnMemory) {
  for (const char* method : {"gptq", "awq"}) {
    QuantizeOptions chosen = options(method);
    const auto expected = made(chosen);
    for (const int threads : {2, 5}) {
      chosen.threads = threads;
      chosen.memory_bytes = threads == 2 ? 0 : 1 << 30;
      EXPECT_EQ(made(chosen), expected) << method << " " << threads;
    }
  }
}

TEST_F(Calibration, GivesTheSameBytesWhereverItWasKilled) {
  for (const char* method : {"gptq", "awq"}) {
    const QuantizeOptions chosen = options(method);
    const auto expected = made(chosen);
    SCOPED_TRACE(method);
    test::expect_same_bytes_when_killed(model(), out(), chosen, 7, expected);
  }
}

TEST_F(Calibration, RefusesToGoOnWithOtherData) {
  const QuantizeOptions chosen = options("gptq");
  run_killed(40, chosen);
  ASSERT_TRUE(fs::exists(out() + ".partial"));
  QuantizeOptions other = chosen;
  other.calibration.samples = 2;
  EXPECT_NE(error_of(other).find("samples was 3, is 2"), std::string::npos);
  other = chosen;
  other.method_options.gptq.damp_percent = 0.05;
  EXPECT_NE(error_of(other).find("damp_percent"), std::string::npos);
  test::write_text(folder_ / "text.txt", "x" + some_text(400));
  EXPECT_NE(error_of(chosen).find("calibration"), std::string::npos);
}

TEST_F(Calibration, ActScalesStandForCalibrationData) {
  QuantizeOptions chosen = options("smoothquant");
  chosen.format = "compressed-tensors";
  chosen.method_options.smoothquant.alpha = 0.5;
  const auto expected = made(chosen);

  const auto checkpoint = open_checkpoint(model());
  const ModelConfig config = parse_model_config(checkpoint->config(), nullptr, "test");
  const CalibrationData data = load_calibration(chosen.calibration, tokenizer(), 64);
  ThreadPool pool(2);
  const ActScales scales = measure_act_scales(*checkpoint, config, data, pool);
  EXPECT_EQ(scales.size(), 15u);
  EXPECT_EQ(scales.at("lm_head").size(), 64u);
  write_act_scales(folder_ / "scales.safetensors", scales);
  chosen.calibration.path.clear();
  chosen.act_scales = folder_ / "scales.safetensors";
  EXPECT_EQ(made(chosen), expected);

  chosen.act_scales = test::golden("checkpoint/scales.pt");  // of another model
  EXPECT_NE(error_of(chosen).find("scales"), std::string::npos);
  fs::remove_all(out() + ".partial");
  chosen.method = "gptq";
  EXPECT_NE(error_of(chosen).find("smoothquant"), std::string::npos);
}

TEST_F(Calibration, SmoothingChangesNothingThatTheBlockComputes) {
  const auto checkpoint = open_checkpoint(model());
  const ModelConfig config = parse_model_config(checkpoint->config(), nullptr, "test");
  BlockWeights block = load_block_weights(*checkpoint, config, 0);
  const BlockWeights original = block;
  auto scales = std::make_shared<ActScales>();
  test::Random random(3);
  for (const BlockWeights::Linear& linear : block.linears) {
    for (int64_t k = 0; k < linear.cols; ++k) {
      (*scales)[linear.name].push_back(static_cast<float>(0.01 + 40 * random.uniform()));
    }
  }
  ThreadPool pool(1);
  const auto rope = std::make_shared<RopeTables>(rope_tables(config.rope, config.head_dim, 16));
  const auto learning = make_learning("cpu", pool);
  BlockJob job{.block = block,
               .schemes = {},
               .rope = rope,
               .pool = pool,
               .learning = *learning,
               .progress = [](double, const std::string&) {},
               .notice = [](const std::string&) {}};
  for (int i = 0; i < kBlockLinears; ++i) {
    job.schemes[i] = int_scheme(8, block.linears[i].cols);
  }
  SmoothQuantOptions options;
  options.alpha = 0.85;
  options.act_scales = scales;
  SmoothQuant(options).quantize(job);
  // The formula, at one column.
  float largest = 0;
  for (const int i : {kQ, kK, kV}) {
    for (int64_t n = 0; n < original.linears[i].rows; ++n) {
      largest = std::max(largest, std::fabs(original.linears[i].weight[n * 64 + 5]));
    }
  }
  const double s = std::pow((*scales)[block.linears[kQ].name][5], 0.85) / std::pow(largest, 0.15);
  EXPECT_NEAR(original.input_norm[5] / block.input_norm[5], s, 1e-5 * s);

  DecoderBlock before(original, rope, pool), after(block, rope, pool);
  BlockTrace trace;
  const std::vector<float> x = test::gaussian(16 * 64, 1);
  std::vector<float> a(x.size()), b(x.size());
  before.forward({1, 16}, x, trace, a);
  after.forward({1, 16}, x, trace, b);
  EXPECT_LT(test::relative_error(b, a), 1e-5);
}

TEST_F(Calibration, SkippedModulesStayInSixteenBits) {
  QuantizeOptions chosen = options("awq");
  chosen.skip = {"lm_head", "gate_proj", "up_proj", "self_attn.k_proj"};
  made(chosen);
  const auto checkpoint = open_checkpoint(out());
  EXPECT_TRUE(checkpoint->load_linear("model.layers.0.mlp.up_proj", 96, 64).weight.scheme.dense());
  EXPECT_FALSE(
      checkpoint->load_linear("model.layers.0.mlp.down_proj", 64, 96).weight.scheme.dense());
}

}  // namespace
}  // namespace lowbit

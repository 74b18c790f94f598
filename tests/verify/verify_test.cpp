#include "lowbit/verify/verify.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checksums.h"
#include "lowbit/quantize/pipeline.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

struct Export {
  const char* method;
  const char* format;
  int bits;
  bool symmetric;
};

constexpr Export kExports[] = {
    {"rtn", "gptq", 2, true},
    {"rtn", "gptq", 3, false},
    {"rtn", "gptq", 4, false},
    {"rtn", "gptq", 8, true},
    {"rtn", "awq", 4, false},
    {"rtn", "auto-round", 4, true},
    {"rtn", "auto-round", 3, false},
    {"rtn", "auto-round-awq", 4, false},
    {"rtn", "compressed-tensors", 3, true},
    {"rtn", "compressed-tensors", 4, false},
    {"rtn", "compressed-tensors", 8, false},
    {"hqq", "hqq", 4, true},
    {"hqq", "hqq", 3, true},
    {"hqq", "hqq", 2, true},
    {"hqq", "hqq", 1, true},
    {"nf4", "bitsandbytes", 4, true},
    {"fp4-double", "bitsandbytes", 4, true},
    {"int8", "bitsandbytes", 8, true},
    {"fp8", "compressed-tensors", 8, true},
    {"fp8-tensor", "fp8", 8, true},
    {"fp8-block", "fp8", 8, true},
    {"mxfp8", "compressed-tensors", 8, true},
    {"mxfp4", "compressed-tensors", 4, true},
    {"nvfp4", "compressed-tensors", 4, true},
    {"rtn", "gguf:q4_0", 4, true},
    {"rtn", "gguf:q4_1", 4, false},
    {"rtn", "gguf:q8_0", 8, true},
};

class Verify : public testing::Test {
 protected:
  void SetUp() override { test::write_tiny_folder(model(), test::tiny_folder_config()); }

  std::string model() const { return folder_ / "model"; }
  std::string out() const { return folder_ / "out"; }

  void make(const Export& what) {
    QuantizeOptions options;
    options.method = what.method;
    options.format = what.format;
    options.bits = what.bits;
    options.symmetric = what.symmetric;
    const bool gguf = std::string(what.format).rfind("gguf", 0) == 0;
    options.group_size = gguf ? 0 : 32;
    options.threads = 1;
    options.force = true;
    quantize_checkpoint(model(), gguf ? out() + ".gguf" : out(), options);
    made_ = gguf ? out() + ".gguf" : out();
  }

  std::string problems(const VerifyReport& report) const {
    std::string text;
    for (const std::string& problem : report.problems) text += problem + "\n";
    return text;
  }

  // Changes one bit of a tensor's bytes in the file.
  void flip(const std::string& tensor, size_t byte) {
    const std::string path = out() + "/model.safetensors";
    const SafetensorsFile file(path);
    std::string bytes = read_file(path, 1 << 26);
    bytes[file.header().tensors.at(tensor).begin + byte] ^= 0x40;
    test::write_text(path, bytes);
  }

  test::TemporaryFolder folder_;
  std::string made_;
};

TEST_F(Verify, EveryExportIsSoundAndReadTwice) {
  for (const Export& what : kExports) {
    SCOPED_TRACE(concat(what.method, " ", what.format, " ", what.bits, " bits"));
    make(what);
    const VerifyReport report = verify_checkpoint(made_, model(), 1);
    EXPECT_EQ(problems(report), "");
    EXPECT_TRUE(report.compared);
    EXPECT_EQ(report.checksums, made_ == out());
    int64_t twice = 0;
    for (const VerifyReport::Layer& layer : report.layers) {
      if (!layer.read_twice) continue;
      ++twice;
      EXPECT_GT(layer.relative_error, 0) << layer.module;
      EXPECT_LT(layer.relative_error, what.bits <= 2 ? 1 : 0.35) << layer.module;
      EXPECT_GT(layer.cosine, what.bits <= 2 ? 0.6 : 0.93) << layer.module;
    }
    EXPECT_GE(twice, 14);
  }
}

TEST_F(Verify, ADenseModelIsSoundToo) {
  const VerifyReport report = verify_checkpoint(model(), "", 1);
  EXPECT_EQ(problems(report), "");
  EXPECT_FALSE(report.compared);
  EXPECT_FALSE(report.checksums);
}

TEST_F(Verify, NoticesABitFlippedAnywhere) {
  const std::string module = "model.layers.1.mlp.down_proj.";
  for (const char* tensor : {"qweight", "qzeros", "scales", "g_idx"}) {
    make({"rtn", "gptq", 4, false});
    flip(module + tensor, 5);
    const VerifyReport report = verify_checkpoint(out(), "", 1);
    EXPECT_NE(problems(report).find("model.safetensors"), std::string::npos) << tensor;
  }
}

TEST_F(Verify, NoticesWithoutChecksumsWhatNumbersBetray) {
  make({"rtn", "gptq", 4, true});
  fs::remove(out() + "/" + kChecksumFile);
  flip("model.layers.0.mlp.up_proj.scales", 1);  // 2^16 times as large, or so
  flip("model.layers.1.input_layernorm.weight", 1);
  const VerifyReport far = verify_checkpoint(out(), model(), 1);
  double worst = 0;
  for (const VerifyReport::Layer& layer : far.layers) worst = std::max(worst, layer.relative_error);
  EXPECT_GT(worst + static_cast<double>(far.problems.size()), 1);
}

TEST_F(Verify, NoticesMissingFilesAndTensors) {
  make({"rtn", "compressed-tensors", 4, true});
  fs::remove(out() + "/tokenizer.json");
  EXPECT_NE(problems(verify_checkpoint(out(), "", 1)).find("tokenizer.json"), std::string::npos);
  make({"rtn", "compressed-tensors", 4, true});
  Json config = read_json(out() + "/config.json");
  config["num_hidden_layers"] = 3;
  test::write_text(out() + "/config.json", dump_json(config));
  EXPECT_NE(problems(verify_checkpoint(out(), "", 1)).find("layers.2"), std::string::npos);
  test::write_text(out() + "/" + kChecksumFile, "nonsense\n");
  EXPECT_NE(problems(verify_checkpoint(out(), "", 1)).find("not a checksum"), std::string::npos);
}

TEST_F(Verify, RefusesAnOriginalThatIsNone) {
  EXPECT_THROW(verify_checkpoint(model(), folder_ / "nothing", 1), Error);
}

}  // namespace
}  // namespace lowbit

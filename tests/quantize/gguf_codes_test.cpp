// Methods that choose integers by themselves, written as GGUF: ggml's blocks hold what was chosen.
#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/model.h"
#include "lowbit/quantize/ggml_blocks.h"
#include "lowbit/quantize/pipeline.h"
#include "support/quantize_runs.h"
#include "support/random.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

struct Case {
  const char* method;
  int bits;
  bool symmetric;
  const char* type;    // as GGUF
  const char* format;  // that holds the same
};

constexpr Case kCases[] = {
    {"gptq", 4, true, "q4_0", "compressed-tensors"},
    {"gptq", 8, true, "q8_0", "compressed-tensors"},
    {"gptq", 4, false, "q4_1", "compressed-tensors"},
    {"awq", 4, true, "q4_0", "compressed-tensors"},
    {"autoround", 4, true, "q4_0", "compressed-tensors"},
    {"autoround", 5, false, "q5_1", "compressed-tensors"},
    {"best", 5, true, "q5_0", "compressed-tensors"},
    {"hqq", 4, true, "q4_1", "hqq"},
};

class GgufCodes : public testing::Test {
 protected:
  void SetUp() override {
    document_ = test::tiny_folder_config();
    test::write_tiny_folder(folder_ / "model", document_);
    std::string text;
    for (int i = 0; i < 300; ++i) text += concat("line ", i * 7919 % 1000, " of some text. ");
    test::write_text(folder_ / "text.txt", text);
  }

  QuantizeOptions options(const Case& c, const std::string& format) const {
    QuantizeOptions options;
    options.method = c.method;
    options.bits = c.bits;
    options.symmetric = c.symmetric;
    options.group_size = 32;
    options.format = format;
    options.threads = 2;
    options.force = true;
    options.calibration.path = folder_ / "text.txt";
    options.calibration.samples = 4;
    options.calibration.seqlen = 16;
    options.method_options.autoround.iterations = 3;
    options.method_options.refine.steps = 2;
    return options;
  }

  test::TemporaryFolder folder_;
  Json document_;
};

TEST_F(GgufCodes, AreThoseThatTheMethodChose) {
  const ModelConfig config = parse_model_config(document_, nullptr, "test");
  for (const Case& c : kCases) {
    SCOPED_TRACE(concat(c.method, " as ", c.type));
    quantize_checkpoint(folder_ / "model", folder_ / "out", options(c, c.format));
    quantize_checkpoint(folder_ / "model", folder_ / "out.gguf", options(c, "gguf"));
    const auto plain = open_checkpoint(folder_ / "out"),
               gguf = open_checkpoint(folder_ / "out.gguf");
    for (const auto& group : block_linears(config, 1)) {
      for (const LinearSlot& slot : group) {
        const QTensor expected = plain->load_linear(slot.module, slot.rows, slot.cols).weight;
        const QTensor found = gguf->load_linear(slot.module, slot.rows, slot.cols).weight;
        if (expected.scheme.zero == Zero::kNone) {
          EXPECT_EQ(dequantize(found), dequantize(expected)) << slot.module;
        } else {  // minima are rounded to fp16, which the next layers are calibrated with
          EXPECT_LT(test::relative_error(dequantize(found), dequantize(expected)), 0.05);
        }
      }
    }
    const std::string norm = "model.layers.1.input_layernorm.weight";
    EXPECT_LT(test::relative_error(gguf->load_vector(norm, config.hidden_size),
                                   plain->load_vector(norm, config.hidden_size)),
              1e-3);
  }
}

TEST_F(GgufCodes, RoundOnlyMinima) {
  for (const QuantScheme& scheme :
       {int_scheme(4, 32), int_scheme(5, 32), int_scheme(8, 32), int_scheme(4, 32, Zero::kInt),
        int_scheme(5, 32, Zero::kInt), int_scheme(4, 32, Zero::kOffset)}) {
    EXPECT_NE(ggml_type_of(scheme), nullptr);
  }
  for (const QuantScheme& scheme : {int_scheme(4, 64), int_scheme(3, 32), int_scheme(6, 32),
                                    int_scheme(8, 32, Zero::kInt), dense_scheme(Code::kF16)}) {
    EXPECT_EQ(ggml_type_of(scheme), nullptr);
  }
}

TEST_F(GgufCodes, SayWhatIsPossible) {
  const std::string model = folder_ / "model", out = folder_ / "x.gguf";
  const auto error = [&](const char* method, const char* format, int bits, bool symmetric = true) {
    return test::quantize_error(model, out, options({method, bits, symmetric, "", ""}, format));
  };
  EXPECT_NE(error("gptq", "gguf:q4_k", 4).find("q4_0, q4_1, q5_0, q5_1, q8_0"), std::string::npos);
  EXPECT_NE(error("gptq", "gguf", 3).find("q4_0"), std::string::npos);
  EXPECT_NE(error("nf4", "gguf", 4).find("cannot hold"), std::string::npos);
  EXPECT_NE(error("smoothquant", "gguf:q8_0", 8).find("not smoothquant"), std::string::npos);
  QuantizeOptions kept = options({"gptq", 4, true, "", ""}, "gguf");
  kept.method_options.gptq.act_order = ActOrder::kKept;
  EXPECT_NE(test::quantize_error(model, out, kept).find("--act-order static"), std::string::npos);
}

}  // namespace
}  // namespace lowbit

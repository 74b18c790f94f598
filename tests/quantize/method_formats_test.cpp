// Each data-free method through the pipeline into each format that holds its weights, and back.
#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/model.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/quantize/quantizer.h"
#include "support/files.h"
#include "support/random.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

struct Pair {
  const char* method;
  const char* format;
};

constexpr Pair kPairs[] = {
    {"rtn", "awq"},
    {"rtn", "auto-round"},
    {"rtn", "auto-round-awq"},
    {"rtn", "hqq"},
    {"rtn-search", "gptq"},
    {"rtn-search", "auto-round"},
    {"hqq", "hqq"},
    {"ternary", "gptq"},
    {"ternary", "hqq"},
    {"int1", "hqq"},
    {"nf4", "bitsandbytes"},
    {"nf4-double", "bitsandbytes"},
    {"fp4", "bitsandbytes"},
    {"fp4-double", "bitsandbytes"},
    {"int8", "bitsandbytes"},
    {"fp8", "compressed-tensors"},
    {"fp8-tensor", "fp8"},
    {"fp8-tensor", "compressed-tensors"},
    {"fp8-block", "fp8"},
    {"fp8-block", "compressed-tensors"},
    {"mxfp8", "compressed-tensors"},
    {"mxfp4", "compressed-tensors"},
    {"nvfp4", "compressed-tensors"},
};

TEST(MethodFormats, EveryPairIsReadBackWithTheWeightsOfItsMethod) {
  const test::TemporaryFolder folder;
  const std::string model = folder / "model", out = folder / "out";
  const Json document = test::tiny_folder_config();
  test::write_tiny_folder(model, document);
  const ModelConfig config = parse_model_config(document, nullptr, "test");
  const auto source = open_checkpoint(model);
  for (const Pair& pair : kPairs) {
    SCOPED_TRACE(concat(pair.method, " as ", pair.format));
    QuantizeOptions options;
    options.method = pair.method;
    options.format = pair.format;
    options.group_size = 32;
    options.threads = 1;
    options.force = true;
    quantize_checkpoint(model, out, options);
    const auto made = open_checkpoint(out);
    const QuantizeMethod& method = quantize_method(pair.method);
    for (const auto& group : block_linears(config, 0)) {
      for (const LinearSlot& slot : group) {
        const auto values =
            dequantize(source->load_linear(slot.module, slot.rows, slot.cols).weight);
        const QTensor expected =
            method.make()->quantize({slot.module, slot.rows, slot.cols, values, nullptr},
                                    for_shape(method.scheme({4, 32, true}), slot.rows, slot.cols));
        const QTensor read = made->load_linear(slot.module, slot.rows, slot.cols).weight;
        EXPECT_LT(test::relative_error(dequantize(read), dequantize(expected)), 1e-6)
            << slot.module;
      }
    }
    for (const TensorInfo& info : made->tensors()) {
      EXPECT_EQ(info.name.find("weight."), std::string::npos) << info.name;
    }
  }
}

TEST(MethodFormats, AMethodHasAFormatOfItsOwn) {
  const test::TemporaryFolder folder;
  const std::string model = folder / "model", out = folder / "out";
  test::write_tiny_folder(model, test::tiny_folder_config());
  for (const QuantizeMethod& method : quantize_methods()) {
    if (method.calibrates()) continue;
    SCOPED_TRACE(method.name);
    QuantizeOptions options;
    options.method = method.name;
    options.group_size = std::string(method.format) == "gguf" ? 0 : 32;
    options.threads = 1;
    options.force = true;
    EXPECT_GT(quantize_checkpoint(model, out, options).linears, 0);
  }
}

TEST(MethodFormats, WhatAFormatCannotHoldIsAnErrorThatSaysSo) {
  const test::TemporaryFolder folder;
  const std::string model = folder / "model";
  test::write_tiny_folder(model, test::tiny_folder_config());
  for (const Pair& pair : {Pair{"nf4", "gptq"}, Pair{"hqq", "awq"}, Pair{"rtn", "bitsandbytes"},
                           Pair{"fp8", "fp8"}, Pair{"nf4", "gguf"}, Pair{"rtn", "nothing"}}) {
    QuantizeOptions options;
    options.method = pair.method;
    options.format = pair.format;
    options.threads = 1;
    EXPECT_THROW(quantize_checkpoint(model, folder / "out", options), Error)
        << pair.method << " as " << pair.format;
    EXPECT_FALSE(fs::exists(folder / "out"));
  }
}

}  // namespace
}  // namespace lowbit

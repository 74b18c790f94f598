#include "lowbit/checkpoint/formats/compressed_floats.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/fp8.h"
#include "lowbit/tensor/codebook.h"
#include "support/linears.h"

namespace lowbit {
namespace {

using test::MemorySource;

Json config_of(const std::string& module) {
  Json weights = {{"num_bits", 8}, {"type", "float"}};
  if (module == "fp8_block") weights["block_structure"] = {128, 128};
  return {{"quant_method", "compressed-tensors"},
          {"config_groups", {{"group_0", {{"weights", weights}}}}}};
}

class CompressedGolden : public testing::TestWithParam<const char*> {};

// Files made by compressed-tensors itself.
TEST_P(CompressedGolden, ReadsWhatTheReferenceDecompresses) {
  const MemorySource source = test::golden_linears("compressed.safetensors");
  const std::string module = GetParam();
  const QTensor weight = kCompressedFormat.read(source, config_of(module), module);
  const std::vector<float> expected = test::floats(source.tensor(module + ".expected"));
  std::vector<float> found = dequantize(weight);
  // The reference rounds to 16 bits on its way in some formats.
  EXPECT_LT(test::relative_error(found, expected),
            module == "fp8_block" || module == "nvfp4" ? 3e-3 : 1e-6);
  if (weight.rows < 100)
    test::expect_no_crash(kCompressedFormat, source, config_of(module), module);
  if (module.rfind("int8", 0) == 0) return;  // written as pack-quantized
  for (const StoredTensor& tensor : kCompressedFormat.write(module, weight)) {
    EXPECT_EQ(test::MemorySource({tensor}).bytes(tensor.name), source.bytes(tensor.name))
        << tensor.name;
    EXPECT_EQ(tensor.shape, source.tensor(tensor.name).shape) << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, CompressedGolden,
                         testing::Values("int8_channel", "int8_tensor", "int8_zero", "fp8_tensor",
                                         "fp8_channel", "fp8_block", "mxfp8", "mxfp4", "nvfp4"),
                         [](const auto& info) { return std::string(info.param); });

// Scales of the scheme's form, all 1 or 2.
QTensor weight_of(const QuantScheme& request, int64_t rows, int64_t cols) {
  QTensor weight;
  weight.scheme = for_shape(request, rows, cols);
  weight.rows = rows;
  weight.cols = cols;
  std::vector<uint8_t> codes(static_cast<size_t>(rows * weight.row_bytes()));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i % 0x77);
  weight.codes = Bytes::own(std::move(codes));
  for (int64_t i = 0; i < weight.scale_rows() * weight.groups(); ++i) {
    weight.scales.push_back(i % 2 == 0 ? 1.f : 2.f);
  }
  return weight;
}

TEST(Compressed, ReadsBackWhatItWrote) {
  for (const QuantScheme& scheme :
       {fp8_scheme(0, 0), fp8_scheme(1, 0), fp8_scheme(128, 128), fp8_scheme(1, 32),
        fp8_scheme(1, 32, ScaleForm::kE8M0), table_scheme(Code::kE2M1, 32, ScaleForm::kE8M0),
        table_scheme(Code::kE2M1, 16, ScaleForm::kE4M3)}) {
    const QTensor weight = weight_of(scheme, 130, 192);
    test::expect_same(test::round_trip(kCompressedFormat, weight), weight);
  }
  const QTensor packed = test::random_weight(int_scheme(4, 32), 32, 64, 1);
  test::expect_same(test::round_trip(kCompressedFormat, packed), packed);
}

TEST(Compressed, SaysHowInputsAreRounded) {
  for (const auto& [bits, inputs, group] : {std::tuple{8, 8, 64}, {4, 8, 64}, {4, 4, 32}}) {
    QuantScheme scheme = int_scheme(bits, group);
    scheme.input_bits = inputs;
    const QTensor weight = test::random_weight(scheme, 32, 64, 1);
    test::expect_same(test::round_trip(kCompressedFormat, weight), weight);
  }
  QuantScheme floats = fp8_scheme(1, 64);
  floats.input_bits = 8;
  const QTensor weight = test::random_weight(floats, 32, 64, 1);
  test::expect_same(test::round_trip(kCompressedFormat, weight), weight);
}

TEST(Compressed, W8A8IsIntQuantized) {
  QuantScheme scheme = int_scheme(8, 64);
  scheme.input_bits = 8;
  const MemorySource source(kCompressedFormat.write("m", test::random_weight(scheme, 32, 64, 1)));
  EXPECT_EQ(source.tensor("m.weight").dtype, "I8");
  EXPECT_EQ(source.tensor("m.weight_scale").shape, (std::vector<int64_t>{32, 1}));
  scheme.group_size = 0;
  Json config = kCompressedFormat.quantization_config(scheme, {});
  EXPECT_EQ(config["format"], "int-quantized");
  Json& inputs = config["config_groups"]["group_0"]["input_activations"];
  EXPECT_EQ(inputs["strategy"], "token");
  const auto read_bits = [&] {
    return kCompressedFormat.read(source, config, "m").scheme.input_bits;
  };
  EXPECT_EQ(read_bits(), 8);
  // What lowbit does not do is left undone, not done wrong: static tokens, whole dynamic tensors.
  // What it does: input_schemes_test.cpp.
  const Json as_written = inputs;
  for (const auto& [key, value] : std::map<std::string, Json>{
           {"dynamic", false}, {"strategy", "tensor"}, {"type", "float"}, {"num_bits", 6}}) {
    inputs = as_written;
    inputs[key] = value;
    EXPECT_EQ(read_bits(), 0) << key;
  }
  inputs = as_written;
  config["config_groups"]["group_1"] = config["config_groups"]["group_0"];
  EXPECT_EQ(read_bits(), 8);
  config["config_groups"]["group_1"]["input_activations"] = nullptr;  // a contradiction
  EXPECT_EQ(read_bits(), 0);
}

TEST(Compressed, RefusesNanScalesAndSparsity) {
  const QTensor weight = weight_of(table_scheme(Code::kE2M1, 32, ScaleForm::kE8M0), 4, 64);
  MemorySource source(kCompressedFormat.write("m", weight));
  Json config = kCompressedFormat.quantization_config(weight.scheme, {});
  config["sparsity_config"] = {{"format", "sparse-bitmask"}};
  EXPECT_THROW(kCompressedFormat.read(source, config, "m"), Error);
  config.erase("sparsity_config");
  source.set_bytes("m.weight_scale", std::vector<uint8_t>(8, 0xff));
  EXPECT_THROW(kCompressedFormat.read(source, config, "m"), Error);
}

TEST(Compressed, RefusesSchemesItCannotHold) {
  EXPECT_THROW(kCompressedFormat.write("m", weight_of(table_scheme(Code::kE2M1, 32), 4, 64)),
               Error);
  EXPECT_THROW(kCompressedFormat.write(
                   "m", weight_of(table_scheme(Code::kE2M1, 64, ScaleForm::kE8M0), 4, 64)),
               Error);
  QTensor nv = weight_of(table_scheme(Code::kE2M1, 16, ScaleForm::kE4M3), 4, 64);
  nv.scales[3] = 1.01f;
  EXPECT_THROW(kCompressedFormat.write("m", nv), Error);
}

TEST(Fp8Format, ReadsBackWhatItWrote) {
  for (const QuantScheme& scheme : {fp8_scheme(0, 0), fp8_scheme(128, 128), fp8_scheme(64, 32)}) {
    const QTensor weight = weight_of(scheme, 130, 192);
    test::expect_same(test::round_trip(kFp8Format, weight), weight);
  }
  EXPECT_THROW(kFp8Format.write("m", weight_of(fp8_scheme(1, 0), 8, 8)), Error);
}

TEST(Fp8Format, ReadsRowsOfFbgemm) {
  const QTensor weight = weight_of(fp8_scheme(1, 0), 6, 8);
  const MemorySource source(kCompressedFormat.write("m", weight));
  const Json config = {{"quant_method", "fbgemm_fp8"}, {"activation_scale_ub", 1200.0}};
  EXPECT_TRUE(kFp8Format.detect(config));
  test::expect_same(kFp8Format.read(source, config, "m"), weight);
  test::expect_no_crash(kFp8Format, source, config, "m");
}

TEST(Fp8Format, RefusesBadBlockSizes) {
  const MemorySource source(kFp8Format.write("m", weight_of(fp8_scheme(128, 128), 130, 192)));
  for (const Json& size : {Json(7), Json::array({0, 128}), Json::array({128}), Json::array({-1, 2}),
                           Json::array({64, 64}), Json::array({1e30, 4})}) {
    const Json config = {{"quant_method", "fp8"}, {"weight_block_size", size}};
    EXPECT_THROW(kFp8Format.read(source, config, "m"), Error) << size;
  }
}

}  // namespace
}  // namespace lowbit

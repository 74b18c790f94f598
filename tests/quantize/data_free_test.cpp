// The methods that need no calibration data, against what their reference programs make.
#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/bitsandbytes.h"
#include "lowbit/checkpoint/formats/compressed_floats.h"
#include "lowbit/checkpoint/formats/hqq.h"
#include "lowbit/quantize/block_codes.h"
#include "lowbit/quantize/float_codes.h"
#include "lowbit/quantize/hqq.h"
#include "support/linears.h"

namespace lowbit {
namespace {

using test::MemorySource;

LinearJob job_of(const std::string& name, const std::vector<float>& weight, const QTensor& like) {
  return {name, like.rows, like.cols, weight, nullptr};
}

const Json kBitsandbytes = {{"quant_method", "bitsandbytes"}};

TEST(BlockCodes, EqualBitsandbytesBitForBit) {
  const MemorySource source = test::golden_linears("bitsandbytes.safetensors");
  for (const std::string module : {"nf4", "nf4_crossing", "nf4_odd", "fp4"}) {
    const QTensor expected = kBitsandbytesFormat.read(source, kBitsandbytes, module);
    const std::vector<float> original = test::floats(source.tensor(module + ".original"));
    const QuantScheme scheme =
        table_scheme(module == "fp4" ? Code::kFp4 : Code::kNf4, module == "fp4" ? 128 : 64);
    const QTensor found = BlockCodes().quantize(job_of(module, original, expected), scheme);
    test::expect_same(found, expected);
    EXPECT_EQ(found.scales, expected.scales);
  }
}

TEST(BlockCodes, EqualBitsandbytesWithDoubleQuantization) {
  const MemorySource source = test::golden_linears("bitsandbytes.safetensors");
  const QTensor expected = kBitsandbytesFormat.read(source, kBitsandbytes, "nf4_nested");
  const std::vector<float> original = test::floats(source.tensor("nf4_nested.original"));
  const QTensor found = BlockCodes().quantize(job_of("w", original, expected),
                                              table_scheme(Code::kNf4, 64, ScaleForm::kNested));
  EXPECT_EQ(found.nested->table, expected.nested->table);
  EXPECT_EQ(found.nested->codes, expected.nested->codes);
  // The mean depends on the order of summation: one unit in its last place.
  EXPECT_NEAR(found.nested->offset, expected.nested->offset, 1.2e-7f * expected.nested->offset);
  EXPECT_LT(test::relative_error(dequantize(found), dequantize(expected)), 2e-7);
}

TEST(BlockCodes, DynamicTableIsSymmetricButForItsEnds) {
  const std::array<float, 256> table = dynamic_table();
  EXPECT_EQ(table.back(), 1.f);
  for (size_t i = 1; i < table.size(); ++i) EXPECT_LT(table[i - 1], table[i]);
  for (size_t i = 0; i < 127; ++i) EXPECT_EQ(table[i], -table[254 - i]);
}

TEST(BlockCodes, ZerosStayZero) {
  const std::vector<float> weight(128, 0.f);
  for (const ScaleForm form : {ScaleForm::kFloat, ScaleForm::kNested}) {
    const QTensor found =
        BlockCodes().quantize({"w", 2, 64, weight, nullptr}, table_scheme(Code::kNf4, 64, form));
    EXPECT_NO_THROW(validate(found, "w"));
    EXPECT_EQ(dequantize(found), weight);
  }
}

TEST(FloatCodes, EqualCompressedTensors) {
  const MemorySource source = test::golden_linears("compressed.safetensors");
  const Json config = {{"quant_method", "compressed-tensors"}};
  for (const std::string module : {"fp8_tensor", "fp8_channel", "mxfp8", "mxfp4", "nvfp4"}) {
    const QTensor expected = kCompressedFormat.read(source, config, module);
    const std::vector<float> original = test::floats(source.tensor(module + ".original"));
    const QTensor found =
        FloatCodes().quantize(job_of(module, original, expected), expected.scheme);
    EXPECT_EQ(found.scales, expected.scales) << module;
    test::expect_same(found, expected);
  }
}

TEST(FloatCodes, EveryGroupIsWithinItsGridsStep) {
  const std::vector<float> weight = test::gaussian(130 * 192, 3);
  for (const QuantScheme& scheme :
       {fp8_scheme(0, 0), fp8_scheme(1, 0), fp8_scheme(128, 128),
        fp8_scheme(1, 32, ScaleForm::kE8M0), table_scheme(Code::kE2M1, 32, ScaleForm::kE8M0),
        table_scheme(Code::kE2M1, 16, ScaleForm::kE4M3)}) {
    const QTensor found = FloatCodes().quantize({"w", 130, 192, weight, nullptr}, scheme);
    EXPECT_NO_THROW(validate(found, "w"));
    const double bound = scheme.code == Code::kE4M3 ? 0.03 : 0.13;
    EXPECT_LT(test::relative_error(dequantize(found), weight), bound) << name_of(found.scheme);
  }
}

TEST(FloatCodes, ZerosStayZeroAndNanIsNamed) {
  std::vector<float> weight(4 * 32, 0.f);
  for (const QuantScheme& scheme :
       {fp8_scheme(0, 0), table_scheme(Code::kE2M1, 32, ScaleForm::kE8M0),
        table_scheme(Code::kE2M1, 16, ScaleForm::kE4M3)}) {
    const QTensor found = FloatCodes().quantize({"w", 4, 32, weight, nullptr}, scheme);
    EXPECT_NO_THROW(validate(found, "w"));
    EXPECT_EQ(dequantize(found), weight);
  }
  weight[40] = NAN;
  EXPECT_THROW(FloatCodes().quantize({"w", 4, 32, weight, nullptr}, fp8_scheme(1, 0)), Error);
}

TEST(Int8Rows, EqualsLlmInt8) {
  const MemorySource source = test::golden_linears("bitsandbytes.safetensors");
  const QTensor expected = kBitsandbytesFormat.read(source, kBitsandbytes, "int8");
  const std::vector<float> original = test::floats(source.tensor("int8.original"));
  const QTensor found = Int8Rows().quantize(job_of("int8", original, expected), int_scheme(8, 0));
  test::expect_same(found, expected);
}

TEST(Hqq, IsAsGoodAsTheReference) {
  const MemorySource source = test::golden_linears("hqq.safetensors");
  for (const std::string module : {"w8", "w4", "w3", "w2", "w1"}) {
    const QTensor expected = kHqqFormat.read(source, {{"quant_method", "hqq"}}, module);
    const std::vector<float> original = test::floats(source.tensor(module + ".original"));
    const QTensor found = Hqq().quantize(job_of(module, original, expected), expected.scheme);
    const double error = test::relative_error(dequantize(found), original);
    const double reference = test::relative_error(dequantize(expected), original);
    EXPECT_LE(error, reference * 1.001) << module;
  }
}

TEST(Hqq, GivesTheSameWhateverTheThreads) {
  const std::vector<float> weight = test::gaussian(16 * 128, 4);
  const QuantScheme scheme = int_scheme(4, 64, Zero::kOffset);
  ThreadPool pool(3);
  const QTensor one = Hqq().quantize({"w", 16, 128, weight, nullptr}, scheme);
  const QTensor three = Hqq().quantize({"w", 16, 128, weight, &pool}, scheme);
  test::expect_same(three, one);
  EXPECT_LT(test::relative_error(dequantize(one), weight), 0.11);
}

TEST(Hqq, ConstantGroupsAreExact) {
  std::vector<float> weight(128, 0.25f);
  const QTensor found =
      Hqq().quantize({"w", 2, 64, weight, nullptr}, int_scheme(4, 64, Zero::kOffset));
  EXPECT_LT(test::relative_error(dequantize(found), weight), 1e-3);
}

}  // namespace
}  // namespace lowbit

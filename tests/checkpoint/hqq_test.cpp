#include "lowbit/checkpoint/formats/hqq.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "support/linears.h"

namespace lowbit {
namespace {

using test::MemorySource;

const Json kConfig = {{"quant_method", "hqq"}};

class HqqGolden : public testing::TestWithParam<const char*> {};

// Files made by hqq itself.
TEST_P(HqqGolden, ReadsAndWritesTheSameCodes) {
  const MemorySource source = test::golden_linears("hqq.safetensors");
  const std::string module = GetParam();
  const QTensor weight = kHqqFormat.read(source, kConfig, module);
  EXPECT_LT(
      test::relative_error(dequantize(weight), test::floats(source.tensor(module + ".expected"))),
      1e-6);
  for (const StoredTensor& tensor : kHqqFormat.write(module, weight)) {
    if (tensor.name != module + ".W_q") continue;
    EXPECT_EQ(tensor.shape, source.tensor(tensor.name).shape);
    EXPECT_EQ(MemorySource({tensor}).bytes(tensor.name), source.bytes(tensor.name));
  }
  test::expect_no_crash(kHqqFormat, source, kConfig, module);
}

INSTANTIATE_TEST_SUITE_P(All, HqqGolden, testing::Values("w8", "w4", "w3", "w2", "w1"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Hqq, RefusesAxisZeroByName) {
  const MemorySource source = test::golden_linears("hqq.safetensors");
  try {
    kHqqFormat.read(source, kConfig, "w4_axis0");
    FAIL() << "read groups across rows";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("axis 0"), std::string::npos) << error.what();
  }
}

TEST(Hqq, ReadsBackWhatItWrote) {
  for (const int bits : {1, 2, 3, 4, 8}) {
    QTensor weight = test::random_weight(int_scheme(bits, 32, Zero::kOffset), 8, 64, 1);
    // Zeros that fp16 holds.
    for (size_t i = 0; i < weight.scales.size(); ++i) {
      weight.offsets[i] = -weight.scales[i] * f16_to_f32(f32_to_f16(0.37f * static_cast<float>(i)));
    }
    test::expect_same(test::round_trip(kHqqFormat, weight), weight);
  }
}

TEST(Hqq, HoldsIntegerZerosToo) {
  const QTensor weight = test::random_weight(int_scheme(4, 32, Zero::kInt), 8, 64, 1);
  const MemorySource source(kHqqFormat.write("m", weight));
  EXPECT_LT(
      test::relative_error(dequantize(kHqqFormat.read(source, kConfig, "m")), dequantize(weight)),
      1e-6);
}

TEST(Hqq, RefusesWhatItCannotHold) {
  const auto weight = [](int bits, int64_t rows, int64_t cols) {
    return test::random_weight(int_scheme(bits, 32, Zero::kOffset), rows, cols, 1);
  };
  EXPECT_THROW(kHqqFormat.write("m", weight(5, 8, 64)), Error);
  EXPECT_THROW(kHqqFormat.write("m", weight(4, 1, 32)), Error);  // one group is no pair
  EXPECT_THROW(kHqqFormat.write("m", weight(4, 8, 40)), Error);
}

}  // namespace
}  // namespace lowbit

#include "lowbit/tensor/qtensor.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {
namespace {

TEST(Packing, UnpackReturnsWhatPackStored) {
  for (int bits = 1; bits <= 8; ++bits) {
    std::vector<uint8_t> stream(packed_bytes(37, bits));
    const auto code = [bits](int i) {
      return static_cast<uint32_t>(i * 11 + 5) & ((1u << bits) - 1);
    };
    for (int i = 0; i < 37; ++i) pack(stream.data(), i, bits, code(i));
    for (int i = 0; i < 37; ++i) EXPECT_EQ(unpack(stream.data(), i, bits), code(i)) << bits;
  }
}

TEST(Packing, EightCodesTakeBitsBytes) {
  for (int bits = 1; bits <= 8; ++bits) EXPECT_EQ(packed_bytes(8, bits), bits);
}

TEST(Dtype, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = f16_to_f32(static_cast<uint16_t>(half));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value))));
    } else {
      EXPECT_EQ(f32_to_f16(value), half);
    }
  }
}

TEST(Dtype, HalfRoundsToNearestEven) {
  EXPECT_EQ(f32_to_f16(65504.f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65519.96f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.f), 0x7c00);
  EXPECT_EQ(f32_to_f16(1.f + 0x1p-11f), 0x3c00);      // half way, to even
  EXPECT_EQ(f32_to_f16(1.f + 3 * 0x1p-11f), 0x3c02);  // half way, to even
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0x0000);            // half of the smallest, to even
  EXPECT_EQ(f32_to_f16(0x1.8p-25f), 0x0001);
}

TEST(Dtype, Bf16RoundsToNearestEven) {
  EXPECT_EQ(f32_to_bf16(1.f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(1.f + 3 * 0x1p-8f), 0x3f82);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
}

QTensor two_groups(Zero zero) {
  QTensor weight;
  weight.scheme = int_scheme(4, 4, zero);
  weight.rows = 1;
  weight.cols = 8;
  std::vector<uint8_t> codes(4);
  for (int i = 0; i < 8; ++i) pack(codes.data(), i, 4, static_cast<uint32_t>(i + 4));
  weight.codes = Bytes::own(std::move(codes));
  weight.scales = {0.5f, 2.f};
  if (zero == Zero::kInt) weight.zeros = {4, 9};
  if (zero == Zero::kOffset) weight.offsets = {-1.f, 3.f};
  return weight;
}

TEST(QTensor, DequantizesByTheFormula) {
  EXPECT_EQ(dequantize(two_groups(Zero::kNone)),
            (std::vector<float>{-2, -1.5, -1, -0.5, 0, 2, 4, 6}));
  EXPECT_EQ(dequantize(two_groups(Zero::kInt)), (std::vector<float>{0, 0.5, 1, 1.5, -2, 0, 2, 4}));
  EXPECT_EQ(dequantize(two_groups(Zero::kOffset)),
            (std::vector<float>{1, 1.5, 2, 2.5, 19, 21, 23, 25}));
}

TEST(QTensor, InputOrderPutsColumnsBack) {
  QTensor weight = two_groups(Zero::kInt);
  weight.input_order = {7, 6, 5, 4, 3, 2, 1, 0};
  EXPECT_EQ(dequantize(weight), (std::vector<float>{4, 2, 0, -2, 1.5, 1, 0.5, 0}));
}

TEST(QTensor, ValidateNamesWhatIsWrong) {
  QTensor weight = two_groups(Zero::kNone);
  EXPECT_NO_THROW(validate(weight, "w"));
  weight.scales[1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(validate(weight, "w"), Error);
  weight = two_groups(Zero::kNone);
  weight.scales.pop_back();
  EXPECT_THROW(validate(weight, "w"), Error);
  weight = two_groups(Zero::kNone);
  weight.input_order = {0, 0, 1, 2, 3, 4, 5, 6};
  EXPECT_THROW(validate(weight, "w"), Error);
}

}  // namespace
}  // namespace lowbit

#include "lowbit/tensor/codebook.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "lowbit/base/check.h"
#include "lowbit/tensor/packing.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit {
namespace {

// By the definition: sign, exponent with bias 7, three mantissa bits.
float e4m3_by_definition(int code) {
  const int exponent = (code >> 3) & 15, mantissa = code & 7;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(8.f + static_cast<float>(mantissa), exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

TEST(E4M3, EveryCodeHasItsValueAndComesBack) {
  for (int code = 0; code < 256; ++code) {
    const float value = e4m3_to_f32(static_cast<uint8_t>(code));
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
      continue;
    }
    EXPECT_EQ(value, e4m3_by_definition(code)) << code;
    EXPECT_EQ(f32_to_e4m3(value), code);
  }
}

TEST(E4M3, RoundsToTheNearestWithTiesToEven) {
  for (int code = 0; code < 0x7e; ++code) {
    const float low = e4m3_by_definition(code), high = e4m3_by_definition(code + 1);
    const float middle = (low + high) / 2;  // exact
    const int even = code % 2 == 0 ? code : code + 1;
    EXPECT_EQ(f32_to_e4m3(middle), even) << middle;
    EXPECT_EQ(f32_to_e4m3(std::nextafterf(middle, 0.f)), code);
    EXPECT_EQ(f32_to_e4m3(-std::nextafterf(middle, 1000.f)), (code + 1) | 0x80);
  }
}

TEST(E4M3, SaturatesInsteadOfBecomingNan) {
  EXPECT_EQ(f32_to_e4m3(449.f), 0x7e);
  EXPECT_EQ(f32_to_e4m3(-1e30f), 0xfe);
  EXPECT_EQ(f32_to_e4m3(std::numeric_limits<float>::infinity()), 0x7e);
  EXPECT_EQ(f32_to_e4m3(std::nanf("")) & 0x7f, 0x7f);
}

TEST(E8M0, IsAPowerOfTwo) {
  EXPECT_EQ(e8m0_to_f32(127), 1.f);
  EXPECT_EQ(e8m0_to_f32(0), std::ldexp(1.f, -127));
  EXPECT_EQ(e8m0_to_f32(254), std::ldexp(1.f, 127));
  EXPECT_TRUE(std::isnan(e8m0_to_f32(255)));
}

// Codes 0, 1, ... in one group of 16.
QTensor all_codes(Code code, float scale) {
  QTensor weight;
  weight.scheme = table_scheme(code, 16);
  weight.rows = 1;
  weight.cols = 16;
  std::vector<uint8_t> codes(8);
  for (int i = 0; i < 16; ++i) pack(codes.data(), i, 4, static_cast<uint32_t>(i));
  weight.codes = Bytes::own(std::move(codes));
  weight.scales = {scale};
  return weight;
}

TEST(Tables, DequantizeByTheirValues) {
  const std::vector<float> nf4 = dequantize(all_codes(Code::kNf4, 2.f));
  const std::vector<float> fp4 = dequantize(all_codes(Code::kFp4, 12.f));
  const std::vector<float> e2m1 = dequantize(all_codes(Code::kE2M1, 1.f));
  EXPECT_EQ(nf4[1], 2 * -0.6961928009986877f);
  EXPECT_EQ(fp4, (std::vector<float>{0, 0.0625f, 8, 12, 4, 6, 2, 3, 0, -0.0625f, -8, -12, -4, -6,
                                     -2, -3}));
  EXPECT_EQ(e2m1,
            (std::vector<float>{0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6}));
  for (int i = 1; i < 16; ++i) EXPECT_LT(nf4[i - 1], nf4[i]);
}

TEST(Tables, SchemesHaveNames) {
  EXPECT_EQ(name_of(table_scheme(Code::kNf4, 64, ScaleForm::kNested)), "nf4_g64_nested");
  EXPECT_EQ(name_of(table_scheme(Code::kE2M1, 32, ScaleForm::kE8M0)), "mxfp4_g32");
  EXPECT_EQ(name_of(table_scheme(Code::kE2M1, 16, ScaleForm::kE4M3)), "nvfp4_g16");
  EXPECT_EQ(name_of(fp8_scheme(128, 128)), "fp8_g128_r128");
  EXPECT_EQ(name_of(for_shape(fp8_scheme(0, 0), 7, 9)), "fp8_g9_r7");
}

// Blocks of rows and columns, ragged at both ends.
TEST(Fp8, BlocksShareAScale) {
  QTensor weight;
  weight.scheme = fp8_scheme(2, 3);
  weight.rows = 3;
  weight.cols = 4;
  weight.codes = Bytes::own(std::vector<uint8_t>(12, f32_to_e4m3(1.5f)));
  weight.scales = {1, 2, 4, 8};
  EXPECT_NO_THROW(validate(weight, "w"));
  EXPECT_EQ(dequantize(weight),
            (std::vector<float>{1.5, 1.5, 1.5, 3, 1.5, 1.5, 1.5, 3, 6, 6, 6, 12}));
}

TEST(Validate, RefusesNanCodesAndScalesOfAnotherForm) {
  QTensor fp8;
  fp8.scheme = fp8_scheme(1, 2);
  fp8.rows = 1;
  fp8.cols = 2;
  fp8.codes = Bytes::own({0x7e, 0xff});
  fp8.scales = {1};
  EXPECT_THROW(validate(fp8, "w"), Error);

  QTensor mx = all_codes(Code::kE2M1, 2.f);
  mx.scheme.scale_form = ScaleForm::kE8M0;
  EXPECT_NO_THROW(validate(mx, "w"));
  for (const float scale : {3.f, 0.f, -2.f}) {
    mx.scales = {scale};
    EXPECT_THROW(validate(mx, "w"), Error) << scale;
  }

  QTensor nested = all_codes(Code::kNf4, 2.f);
  nested.scheme.scale_form = ScaleForm::kNested;
  EXPECT_THROW(validate(nested, "w"), Error);

  QTensor wide = all_codes(Code::kNf4, 2.f);
  wide.scheme.bits = 8;
  EXPECT_THROW(validate(wide, "w"), Error);
}

}  // namespace
}  // namespace lowbit

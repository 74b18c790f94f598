#include "lowbit/quantize/rtn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"
#include "support/random.h"

namespace lowbit {
namespace {

LinearJob job_of(const std::vector<float>& weight, int64_t rows, int64_t cols) {
  return {"layer", rows, cols, weight, nullptr};
}

QTensor rtn(const std::vector<float>& weight, int64_t cols, const QuantScheme& scheme) {
  return Rtn().quantize(job_of(weight, static_cast<int64_t>(weight.size()) / cols, cols), scheme);
}

std::string message_of(const std::vector<float>& weight, int64_t cols, const QuantScheme& scheme) {
  try {
    rtn(weight, cols, scheme);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.what();
  }
  return "";
}

TEST(Rtn, SymmetricFollowsTheFormula) {
  const QTensor weight = rtn({-7, 3.4f, 3.6f, 7, 0, 0.5f, -0.5f, 1.5f}, 8, int_scheme(4, 8));
  EXPECT_EQ(weight.scales, std::vector<float>{1});
  EXPECT_EQ(dequantize(weight), (std::vector<float>{-7, 3, 4, 7, 0, 0, 0, 2}));
}

TEST(Rtn, AsymmetricFollowsTheFormula) {
  const QTensor weight = rtn({-3, 12, 0, 1, 5.4f, 5.6f, -3, 2}, 8, int_scheme(4, 8, Zero::kInt));
  EXPECT_EQ(weight.scales, std::vector<float>{1});
  EXPECT_EQ(weight.zeros, std::vector<uint8_t>{3});
  EXPECT_EQ(dequantize(weight), (std::vector<float>{-3, 12, 0, 1, 5, 6, -3, 2}));
}

// The formula once more, element by element in double precision.
TEST(Rtn, EveryWidthIsWithinHalfAStep) {
  const std::vector<float> values = test::gaussian(8 * 128, 3);
  for (int bits = 2; bits <= 8; ++bits) {
    for (const Zero zero : {Zero::kNone, Zero::kInt}) {
      const QTensor weight = rtn(values, 128, int_scheme(bits, 64, zero));
      const std::vector<float> back = dequantize(weight);
      for (size_t i = 0; i < values.size(); ++i) {
        const double scale = weight.scales[i / 64];
        // Rounding the scale to fp16 moves the ends of the range by up to 2^-11 of it.
        const double ends = std::fabs(values[i]) / 1024 + scale / 2 * (zero == Zero::kInt);
        EXPECT_LE(std::fabs(back[i] - values[i]), scale * 0.501 + ends) << bits << " " << i;
      }
    }
  }
}

TEST(Rtn, ScalesAreFp16Values) {
  const QTensor weight = rtn(test::gaussian(32 * 64, 4), 64, int_scheme(3, 32, Zero::kInt));
  for (const float scale : weight.scales) EXPECT_EQ(f16_to_f32(f32_to_f16(scale)), scale);
}

TEST(Rtn, ZerosStayZero) {
  for (const Zero zero : {Zero::kNone, Zero::kInt}) {
    const QTensor weight = rtn(std::vector<float>(64), 64, int_scheme(4, 32, zero));
    EXPECT_EQ(weight.scales, (std::vector<float>{1, 1}));
    EXPECT_EQ(dequantize(weight), std::vector<float>(64));
  }
}

TEST(Rtn, TinyWeightsUseTheSmallestScale) {
  const QTensor weight = rtn(std::vector<float>(32, 1e-9f), 32, int_scheme(4, 32));
  EXPECT_EQ(weight.scales, std::vector<float>{0x1p-24f});
  EXPECT_EQ(dequantize(weight), std::vector<float>(32));
}

TEST(Rtn, NamesTheFirstWeightThatIsNotFinite) {
  std::vector<float> values(4 * 32);
  values[2 * 32 + 5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(message_of(values, 32, int_scheme(4, 32)).find("row 2, column 5"), std::string::npos);
  values[2 * 32 + 5] = -std::numeric_limits<float>::infinity();
  EXPECT_NE(message_of(values, 32, int_scheme(4, 32)).find("row 2, column 5"), std::string::npos);
}

TEST(Rtn, RefusesAScaleThatFp16CannotHold) {
  for (const Zero zero : {Zero::kNone, Zero::kInt}) {
    const std::string message = message_of({1e38f, -3e38f}, 2, int_scheme(2, 2, zero));
    EXPECT_NE(message.find("layer: row 0"), std::string::npos) << message;
  }
}

TEST(Rtn, RefusesGroupsThatDoNotDivideTheColumns) {
  EXPECT_NE(message_of(std::vector<float>(48), 48, int_scheme(4, 32)).find("48 columns"),
            std::string::npos);
}

TEST(Rtn, DoesNotDependOnThreads) {
  const std::vector<float> values = test::gaussian(100 * 96, 5);
  LinearJob job = job_of(values, 100, 96);
  const QTensor alone = Rtn().quantize(job, int_scheme(5, 32, Zero::kInt));
  ThreadPool pool(3);
  job.pool = &pool;
  const QTensor together = Rtn().quantize(job, int_scheme(5, 32, Zero::kInt));
  EXPECT_TRUE(
      std::equal(alone.codes.data, alone.codes.data + alone.codes.size, together.codes.data));
  EXPECT_EQ(alone.scales, together.scales);
  EXPECT_EQ(alone.zeros, together.zeros);
}

TEST(Methods, AnUnknownNameListsThoseThereAre) {
  EXPECT_STREQ(quantize_method("rtn").name, "rtn");
  try {
    quantize_method("magic");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("rtn"), std::string::npos);
  }
}

TEST(Rtn, SearchedScalesAreNeverWorse) {
  const std::vector<float> values = test::gaussian(64 * 128, 9);
  const Rtn search(Rtn::Search::kScale);
  for (const int bits : {2, 3, 4, 8}) {
    for (const Zero zero : {Zero::kNone, Zero::kInt}) {
      const QuantScheme scheme = int_scheme(bits, 64, zero);
      const double plain = test::relative_error(dequantize(rtn(values, 128, scheme)), values);
      const QTensor found = search.quantize(job_of(values, 64, 128), scheme);
      const double searched = test::relative_error(dequantize(found), values);
      EXPECT_NO_THROW(validate(found, "w"));
      // A 2-bit symmetric grid has most to gain: its plain scale wastes the fourth code.
      EXPECT_LT(searched, plain * (bits == 2   ? 0.9
                                   : bits == 8 ? 1.0001
                                               : 0.98))
          << bits << " " << plain;
    }
  }
}

TEST(Rtn, SearchLeavesZerosAlone) {
  const std::vector<float> zeros(64);
  const Rtn search(Rtn::Search::kScale);
  for (const Zero zero : {Zero::kNone, Zero::kInt}) {
    EXPECT_EQ(dequantize(search.quantize(job_of(zeros, 1, 64), int_scheme(4, 64, zero))), zeros);
  }
}

}  // namespace
}  // namespace lowbit

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowbit/runtime/kv_cache.h"
#include "lowbit/runtime/kv_codes.h"
#include "support/random.h"

namespace lowbit {
namespace {

TEST(KvCodes, Of8BitFloatsLoseLessThanHalfAStep) {
  for (const float size : {1e-5f, 1e-3f, 1.f, 300.f, 60000.f}) {
    std::vector<float> x = test::gaussian(128, 7);
    for (float& value : x) value *= size / 4;
    std::vector<uint8_t> codes(x.size());
    const float scale = f16_to_f32(round_to_e4m3(x.data(), 128, codes.data()));
    for (size_t i = 0; i < x.size(); ++i) {
      const float step = std::max(std::fabs(x[i]) / 8, scale * 0x1p-9f);
      EXPECT_LE(std::fabs(scale * e4m3_to_f32(codes[i]) - x[i]), step / 2 * 1.001f) << size;
    }
  }
}

TEST(KvCodes, Of4BitsLoseLittleMoreThanHalfAStep) {
  for (const float shift : {0.f, 5.f, -30.f}) {
    for (const float size : {1e-3f, 1.f, 300.f}) {
      std::vector<float> x = test::gaussian(64, 8);
      for (float& value : x) value = size * (value + shift);
      std::vector<uint8_t> codes(x.size());
      const KvAffine group = round_to_4_bits(x.data(), 64, codes.data());
      const float step = f16_to_f32(group.scale), least = f16_to_f32(group.offset);
      for (size_t i = 0; i < x.size(); ++i) {
        EXPECT_LT(codes[i], 16);
        EXPECT_LE(std::fabs(group.value(codes[i]) - x[i]),
                  step / 2 + 0x1p-10f * (15 * step + std::fabs(least)));
      }
    }
  }
}

TEST(KvCodes, KeepConstantsAndZeros) {
  for (const float constant : {0.f, 1.5f, -3.f}) {
    const std::vector<float> x(64, constant);
    uint8_t codes[64];
    const KvAffine group = round_to_4_bits(x.data(), 64, codes);
    const float scale = f16_to_f32(round_to_e4m3(x.data(), 64, codes));
    EXPECT_EQ(group.value(0), constant);
    EXPECT_NEAR(scale * e4m3_to_f32(codes[0]), constant, std::fabs(constant) / 16);
  }
}

TEST(KvCodes, SayThatANumberIsNotFiniteInTheScaleAlone) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x(64, 1.f);
    x[37] = bad;
    uint8_t codes[64];
    EXPECT_TRUE(std::isnan(f16_to_f32(round_to_e4m3(x.data(), 64, codes))));
    for (const uint8_t code : codes) EXPECT_EQ(code, 0);
    EXPECT_TRUE(std::isnan(round_to_4_bits(x.data(), 64, codes).value(3)));
    for (const uint8_t code : codes) EXPECT_LT(code, 16);
  }
}

TEST(KvCodes, MixedQueriesAndKeysHaveTheSameProducts) {
  for (const int64_t dim : {2, 20, 64, 80, 96, 128}) {
    std::vector<float> q = test::gaussian(dim, 9), k = test::gaussian(dim, 10);
    k[1] += 50;
    const double product = std::inner_product(q.begin(), q.end(), k.begin(), 0.0);
    mix_dimensions(q.data(), dim, false);
    mix_dimensions(k.data(), dim, true);
    EXPECT_NEAR(std::inner_product(q.begin(), q.end(), k.begin(), 0.0), product, 1e-4) << dim;
    if (dim == 64) {
      EXPECT_LT(*std::max_element(k.begin(), k.end()), 12);
    }
  }
}

TEST(KvCodes, TakeTheMemoryThatTheCacheSays) {
  const auto bits = [](DType type, int64_t dim) {
    const KvCacheSpec spec{1, 1, dim, 1, type};
    return 8.0 * static_cast<double>(spec.page_bytes()) / static_cast<double>(kBlockTokens * dim);
  };
  EXPECT_EQ(bits(DType::kF16, 128), 16);
  EXPECT_EQ(bits(DType::kE4M3, 128), 8.125);
  EXPECT_EQ(bits(DType::kI8, 128), 8.25);
  EXPECT_EQ(bits(DType::kI4, 128), 4.5);
  EXPECT_EQ(bits(DType::kI4, 64), 4.5);
}

}  // namespace
}  // namespace lowbit

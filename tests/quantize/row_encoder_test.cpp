#include "lowbit/quantize/row_encoder.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/base/file.h"
#include "lowbit/checkpoint/ggml_types.h"
#include "support/paths.h"
#include "support/random.h"

namespace lowbit {
namespace {

std::vector<uint8_t> encode(const std::string& type, const std::vector<float>& row) {
  const RowEncoder& encoder = row_encoder(type);
  std::vector<uint8_t> bytes(encoder.row_bytes(static_cast<int64_t>(row.size())));
  EXPECT_TRUE(encoder.encode(row, bytes.data())) << type;
  return bytes;
}

std::string hex(const std::vector<uint8_t>& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

// x[i] = (((i * 37 + 11) mod 101) - 50) / 32, blocks made by ggml's reference quantizers.
TEST(RowEncoder, EqualsGgmlOnAPublishedBlock) {
  std::vector<float> x(32);
  for (int i = 0; i < 32; ++i) x[i] = static_cast<float>((i * 37 + 11) % 101 - 50) / 32.f;
  EXPECT_EQ(hex(encode("Q4_0", x)), "4032f258be1379df359bf147ac0268ce248a");
  EXPECT_EQ(hex(encode("Q4_1", x)), "893240bef257bd1379cf358ae146ac0268bd2479");
  EXPECT_EQ(hex(encode("Q8_0", x)),
            "4d229dfb59b61472d02e8be947a50361be1c7ad73593f14fac0a68c62481df3d9af8");
}

// Random, constant, one-sided, zero and denormal rows by libggml: see tools/golden/ggml_encode.py.
TEST(RowEncoder, EqualsGgmlOnAllKindsOfRows) {
  const std::string bytes = read_file(test::golden("quantize/ggml_encode.bin"), 1 << 20);
  const auto* at = reinterpret_cast<const uint8_t*>(bytes.data());
  const uint8_t* end = at + bytes.size();
  int rows = 0;
  for (const char* type : {"Q4_0", "Q4_1", "Q8_0", "F16"}) {
    uint32_t shape[2];
    memcpy(shape, at, 8);
    at += 8;
    for (uint32_t row = 0; row < shape[0]; ++row, ++rows) {
      std::vector<float> values(shape[1]);
      memcpy(values.data(), at, values.size() * 4);
      at += values.size() * 4;
      const std::vector<uint8_t> made = encode(type, values);
      ASSERT_LE(at + made.size(), end);
      EXPECT_EQ(hex(made), hex({at, at + made.size()})) << type << " row " << row;
      at += made.size();
    }
  }
  EXPECT_EQ(at, end);
  EXPECT_GT(rows, 40);
}

TEST(RowEncoder, WhatItWritesIsReadBackClose) {
  const std::vector<float> values = test::gaussian(64, 8);
  for (const auto& [type, limit] :
       std::vector<std::pair<std::string, double>>{{"Q4_0", 0.12}, {"Q4_1", 0.1}, {"Q8_0", 0.01}}) {
    const QTensor weight = ggml_type(type)->read(Bytes::own(encode(type, values)), 1, 64);
    EXPECT_LT(test::relative_error(dequantize(weight), values), limit) << type;
  }
}

TEST(RowEncoder, SaysWhenAValueIsTooLarge) {
  for (const char* type : {"F16", "Q4_0", "Q4_1", "Q8_0"}) {
    std::vector<float> row(32, -3e38f);
    row[1] = 3e38f;
    std::vector<uint8_t> bytes(64);
    EXPECT_FALSE(row_encoder(type).encode(row, bytes.data())) << type;
  }
}

TEST(RowEncoder, AnUnknownTypeListsThoseThereAre) {
  try {
    row_encoder("Q9_9");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("Q8_0"), std::string::npos);
  }
}

}  // namespace
}  // namespace lowbit

#include "lowbit/quantize/row_encoder.h"

#include <gtest/gtest.h>

#include <cmath>
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
  EXPECT_EQ(hex(encode("Q5_0", x)), "402eb4b4a525f4bf7b27e3ae5a16d19d4904c08c38f4");
  EXPECT_EQ(hex(encode("Q8_0", x)),
            "4d229dfb59b61472d02e8be947a50361be1c7ad73593f14fac0a68c62481df3d9af8");
}

// Random, constant, one-sided, zero and denormal rows by libggml: see tools/golden/ggml_encode.py.
TEST(RowEncoder, EqualsGgmlOnAllKindsOfRows) {
  const std::string bytes = read_file(test::golden("quantize/ggml_encode.bin"), 1 << 20);
  const auto* at = reinterpret_cast<const uint8_t*>(bytes.data());
  const uint8_t* end = at + bytes.size();
  int rows = 0;
  for (const char* type : {"Q4_0", "Q4_1", "Q8_0", "F16", "Q5_0", "Q5_1"}) {
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

struct FitGolden {
  std::vector<std::vector<float>> rows;
  std::vector<std::vector<double>> errors;  // [type][row]
  std::string blocks;                       // of the exact types
};

constexpr const char* kFitted[] = {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"};

FitGolden read_fits() {
  const std::string bytes = read_file(test::golden("quantize/ggml_fits.bin"), 1 << 20);
  uint32_t shape[2];
  memcpy(shape, bytes.data(), 8);
  size_t at = 8;
  FitGolden golden;
  for (uint32_t row = 0; row < shape[0]; ++row, at += shape[1] * 4) {
    golden.rows.emplace_back(shape[1]);
    memcpy(golden.rows.back().data(), bytes.data() + at, shape[1] * 4);
  }
  for (size_t type = 0; type < std::size(kFitted); ++type, at += shape[0] * 8) {
    golden.errors.emplace_back(shape[0]);
    memcpy(golden.errors.back().data(), bytes.data() + at, shape[0] * 8);
  }
  golden.blocks = bytes.substr(at);
  return golden;
}

std::vector<float> written(const std::string& type, const std::vector<float>& row) {
  const auto cols = static_cast<int64_t>(row.size());
  return dequantize(ggml_type(type)->read(Bytes::own(encode(type, row)), 1, cols));
}

double squared_error(const std::string& type, const std::vector<float>& row) {
  const std::vector<float> values = written(type, row);
  double sum = 0;
  for (size_t i = 0; i < row.size(); ++i) sum += std::pow(double{values[i]} - row[i], 2);
  return sum;
}

// See tools/golden/ggml_fits.py.
TEST(RowEncoder, FitsNoWorseThanGgmlsOwnSearch) {
  const FitGolden golden = read_fits();
  for (size_t type = 0; type < std::size(kFitted); ++type) {
    double all = 0, all_of_ggml = 0;
    for (size_t row = 0; row < golden.rows.size(); ++row) {
      const double error = squared_error(kFitted[type], golden.rows[row]);
      const double of_ggml = golden.errors[type][row];
      // Errors are weighted, so that of one row may be a little larger unweighted.
      EXPECT_LE(error, 1.02 * of_ggml + 1e-12) << kFitted[type] << " row " << row;
      all += error;
      all_of_ggml += of_ggml;
    }
    EXPECT_LT(all, all_of_ggml) << kFitted[type];
  }
}

TEST(RowEncoder, TernaryAndBinaryBlocksEqualGgmls) {
  const FitGolden golden = read_fits();
  size_t at = 0;
  for (const char* type : {"TQ1_0", "TQ2_0", "Q2_0", "Q1_0"}) {
    for (const std::vector<float>& row : golden.rows) {
      const std::vector<uint8_t> made = encode(type, row);
      const auto* expected = reinterpret_cast<const uint8_t*>(golden.blocks.data()) + at;
      at += made.size();
      ASSERT_LE(at, golden.blocks.size());
      EXPECT_EQ(hex(made), hex({expected, expected + made.size()})) << type;
    }
  }
  EXPECT_EQ(at, golden.blocks.size());
}

TEST(RowEncoder, TernaryAndBinaryWeightsLoseNothing) {
  const FitGolden golden = read_fits();
  const std::vector<float>&ternary = golden.rows[6], &binary = golden.rows[7];
  for (const char* type : {"TQ1_0", "TQ2_0", "Q2_0"}) {
    EXPECT_EQ(written(type, ternary), ternary) << type;
    EXPECT_EQ(written(type, binary), binary) << type;
  }
  EXPECT_EQ(written("Q1_0", binary), binary);
}

TEST(RowEncoder, WhatItWritesIsReadBackClose) {
  const std::vector<float> values = test::gaussian(512, 8);
  for (const auto& [type, limit] : std::vector<std::pair<std::string, double>>{{"Q4_0", 0.12},
                                                                               {"Q4_1", 0.1},
                                                                               {"Q5_0", 0.05},
                                                                               {"Q5_1", 0.045},
                                                                               {"Q8_0", 0.01},
                                                                               {"IQ4_NL", 0.09},
                                                                               {"Q2_K", 0.29},
                                                                               {"Q3_K", 0.16},
                                                                               {"Q4_K", 0.075},
                                                                               {"Q5_K", 0.037},
                                                                               {"Q6_K", 0.019},
                                                                               {"TQ2_0", 0.85},
                                                                               {"Q1_0", 0.7}}) {
    EXPECT_LT(test::relative_error(written(type, values), values), limit) << type;
  }
}

TEST(RowEncoder, SearchedScalesHaveLessError) {
  const FitGolden golden = read_fits();
  for (const char* type : {"Q4_0", "Q4_1", "Q5_0", "Q5_1"}) {
    const RowEncoder& encoder = row_encoder(type);
    double plain = 0, searched = 0;
    for (const std::vector<float>& row : golden.rows) {
      const auto cols = static_cast<int64_t>(row.size());
      std::vector<uint8_t> bytes(encoder.row_bytes(cols));
      EXPECT_TRUE(encoder.search(row, bytes.data()));
      const auto values = dequantize(ggml_type(type)->read(Bytes::own(std::move(bytes)), 1, cols));
      const double error = test::relative_error(values, row);
      const double of_plain = test::relative_error(written(type, row), row);
      EXPECT_LE(error, 1.01 * of_plain + 1e-6) << type;
      searched += error * error;
      plain += of_plain * of_plain;
    }
    EXPECT_LT(searched, 0.97 * plain) << type;
    std::vector<float> huge(32, -3e38f);
    huge[1] = 3e38f;
    std::vector<uint8_t> bytes(64);
    EXPECT_FALSE(encoder.search(huge, bytes.data())) << type;
  }
}

// Zeros, one weight, constants of either sign, and sizes that fp16 or squares in fp32 cannot hold.
TEST(RowEncoder, OddRowsAreFitted) {
  std::vector<std::vector<float>> rows = {
      std::vector<float>(256, 0.f), std::vector<float>(256, 0.7f), std::vector<float>(256, -0.7f),
      std::vector<float>(256, 1e-30f), std::vector<float>(256, 0.f)};
  rows.back()[77] = -3;
  for (const std::string type : kFitted) {
    for (const std::vector<float>& row : rows) {
      const double limit = row[0] == 1e-30f ? 1.01 : type == "IQ4_NL" ? 0.05 : 0.01;  // it has no 0
      EXPECT_LT(test::relative_error(written(type, row), row), limit)
          << type << " " << row[0] << " " << row[77];
    }
  }
  const std::vector<float> values = test::gaussian(256, 9);
  for (const float size : {1e-4f, 1e4f}) {
    std::vector<float> row = values;
    for (float& value : row) value *= size;
    EXPECT_LT(test::relative_error(written("Q4_K", row), row), 0.2) << size;
  }
}

TEST(RowEncoder, SaysWhenAValueIsTooLarge) {
  for (const char* type : {"F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K",
                           "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0"}) {
    std::vector<float> row(256, -3e38f);
    row[1] = 3e38f;
    std::vector<uint8_t> bytes(512);
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

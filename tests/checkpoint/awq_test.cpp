#include "lowbit/checkpoint/formats/awq.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/auto_round.h"
#include "lowbit/tensor/packing.h"
#include "support/linears.h"

namespace lowbit {
namespace {

using test::MemorySource;
using test::random_weight;

// Rows 0 to 7 hold codes 0 to 7 in every column.
QTensor counting_rows() {
  QTensor weight = random_weight(int_scheme(4, 32, Zero::kInt), 8, 32, 1);
  std::vector<uint8_t> codes(8 * 16);
  for (int n = 0; n < 8; ++n) {
    for (int k = 0; k < 32; ++k) pack(codes.data() + n * 16, k, 4, static_cast<uint32_t>(n));
  }
  weight.codes = Bytes::own(std::move(codes));
  return weight;
}

TEST(Awq, InterleavesTheRowsOfAWord) {
  const MemorySource source(kAwqFormat.write("m", counting_rows()));
  const std::vector<uint8_t> words = source.bytes("m.qweight");
  ASSERT_EQ(words.size(), 32u * 4);
  for (size_t i = 0; i < words.size(); i += 4) {
    uint32_t word;
    std::memcpy(&word, words.data() + i, 4);
    EXPECT_EQ(word, 0x75316420u);
  }
}

TEST(Awq, ReadsBackWhatItWrote) {
  for (const Zero zero : {Zero::kNone, Zero::kInt}) {
    for (const int64_t group : {32, 64, 128}) {
      const QTensor weight = random_weight(int_scheme(4, group, zero), 24, 128, 2);
      test::expect_same(test::round_trip(kAwqFormat, weight), weight);
    }
  }
}

TEST(Awq, TakesMissingZerosAsTheMiddle) {
  const QTensor weight = random_weight(int_scheme(4, 32), 8, 64, 3);
  MemorySource source(kAwqFormat.write("m", weight));
  source.remove("m.qzeros");
  const Json config = {{"quant_method", "awq"}, {"w_bit", 4}, {"q_group_size", 32}};
  test::expect_same(kAwqFormat.read(source, config, "m"), weight);
}

TEST(Awq, RefusesOtherVersionsAndWhatItCannotHold) {
  const MemorySource source(kAwqFormat.write("m", counting_rows()));
  for (const char* version : {"gemv", "GEMV_FAST", "marlin"}) {
    const Json config = {{"quant_method", "awq"}, {"version", version}, {"group_size", 32}};
    EXPECT_THROW(kAwqFormat.read(source, config, "m"), Error) << version;
  }
  EXPECT_THROW(kAwqFormat.write("m", random_weight(int_scheme(3, 32), 8, 32, 1)), Error);
  EXPECT_THROW(kAwqFormat.write("m", random_weight(int_scheme(4, 32), 7, 32, 1)), Error);
  QTensor ordered = counting_rows();
  ordered.input_order = test::random_order(32, 1);
  EXPECT_THROW(kAwqFormat.write("m", ordered), Error);
}

TEST(Awq, SurvivesDamage) {
  const QTensor weight = random_weight(int_scheme(4, 32, Zero::kInt), 16, 64, 4);
  const MemorySource source(kAwqFormat.write("m", weight));
  test::expect_no_crash(kAwqFormat, source, {{"quant_method", "awq"}, {"group_size", 32}}, "m");
}

TEST(AutoRound, ReadsBackWhatItWrote) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const Zero zero : {Zero::kNone, Zero::kInt}) {
      QTensor weight = random_weight(int_scheme(bits, 32, zero), 32, 64, 5);
      for (size_t i = 0; i < weight.scales.size(); i += 2) weight.scales[i] = -weight.scales[i];
      test::expect_same(test::round_trip(kAutoRoundFormat, weight), weight);
      if (bits == 4) test::expect_same(test::round_trip(kAutoRoundAwqFormat, weight), weight);
    }
  }
}

// AutoRound stores the sum of (zero - 1) << 4i: a zero of 0 borrows from its neighbour.
TEST(AutoRound, TakesBackWhatAZeroOfZeroBorrowed) {
  QTensor weight = random_weight(int_scheme(4, 32, Zero::kInt), 32, 32, 6);
  for (size_t i = 0; i < weight.zeros.size(); ++i) weight.zeros[i] = i % 3 == 0 ? 0 : i % 16;
  MemorySource source(kAutoRoundFormat.write("m", weight));
  std::vector<uint8_t> bytes;
  for (int c = 0; c < 4; ++c) {
    uint32_t word = 0;
    for (int i = 0; i < 8; ++i) {
      word += (static_cast<uint32_t>(weight.zeros[c * 8 + i]) - 1u) << 4 * i;
    }
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<uint8_t>(word >> 8 * i));
  }
  source.set_bytes("m.qzeros", bytes);
  const Json config = {{"quant_method", "auto-round"},
                       {"bits", 4},
                       {"group_size", 32},
                       {"packing_format", "auto_round:auto_gptq:exllamav2"}};
  test::expect_same(kAutoRoundFormat.read(source, config, "m"), weight);
}

TEST(AutoRound, IsToldApartByItsPackingFormat) {
  const auto config = [](const char* packing) {
    return Json{{"quant_method", "intel/auto-round"}, {"packing_format", packing}};
  };
  for (const char* packing : {"auto_round:auto_awq", "auto_round:awq"}) {
    EXPECT_TRUE(kAutoRoundAwqFormat.detect(config(packing))) << packing;
    EXPECT_FALSE(kAutoRoundFormat.detect(config(packing))) << packing;
  }
  for (const char* packing : {"auto_round", "auto_round:exllamav2", "auto", "auto_round:gptq"}) {
    EXPECT_TRUE(kAutoRoundFormat.detect(config(packing))) << packing;
  }
}

TEST(AutoRound, RefusesActivationsInLowBitsAndRotations) {
  const MemorySource source(
      kAutoRoundFormat.write("m", random_weight(int_scheme(4, 32), 32, 64, 5)));
  Json config = kAutoRoundFormat.quantization_config(int_scheme(4, 32), {});
  EXPECT_NO_THROW(kAutoRoundFormat.read(source, config, "m"));
  config["act_bits"] = 8;
  EXPECT_THROW(kAutoRoundFormat.read(source, config, "m"), Error);
  config["act_bits"] = 16;
  config["rotation_config"] = {{"kind", "hadamard"}};
  EXPECT_THROW(kAutoRoundFormat.read(source, config, "m"), Error);
  config.erase("rotation_config");
  config["data_type"] = "mx_fp";
  EXPECT_THROW(kAutoRoundFormat.read(source, config, "m"), Error);
}

}  // namespace
}  // namespace lowbit

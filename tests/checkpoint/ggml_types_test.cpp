#include "lowbit/checkpoint/ggml_types.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/base/file.h"
#include "support/paths.h"
#include "support/random.h"

namespace lowbit {
namespace {

std::vector<uint8_t> from_hex(const std::string& hex) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::vector<float> dequantize_hex(const std::string& type, const std::string& hex) {
  const GgmlType* row = ggml_type(type);
  return dequantize(row->read(Bytes::own(from_hex(hex)), 1, row->block_elems));
}

// The weights that the blocks below were made from by ggml's reference quantizers.
double mean_square_error(const std::vector<float>& values) {
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double x = ((static_cast<int>(i) * 37 + 11) % 101 - 50) / 32.0;
    sum += (values[i] - x) * (values[i] - x);
  }
  return sum / static_cast<double>(values.size());
}

void expect_first(const std::vector<float>& values, const std::vector<float>& first) {
  for (size_t i = 0; i < first.size(); ++i) EXPECT_FLOAT_EQ(values[i], first[i]) << i;
}

TEST(GgmlTypes, ReadsTheReferenceBlockOfQ4_0) {
  const auto values = dequantize_hex("Q4_0", "4032f258be1379df359bf147ac0268ce248a");
  expect_first(values, {-1.171875f, 0, 1.171875f, -0.9765625f});
  EXPECT_NEAR(mean_square_error(values), 0.00369262695, 1e-10);
}

TEST(GgmlTypes, ReadsTheReferenceBlockOfQ4_1) {
  const auto values = dequantize_hex("Q4_1", "893240bef257bd1379cf358ae146ac0268bd2479");
  expect_first(values, {-1.15405273f, -0.13293457f, 1.09240723f, -0.949829102f});
  EXPECT_NEAR(mean_square_error(values), 0.00327282446, 1e-10);
}

TEST(GgmlTypes, ReadsTheReferenceBlockOfQ5_0) {
  const auto values = dequantize_hex("Q5_0", "402eb4b4a525f4bf7b27e3ae5a16d19d4904c08c38f4");
  expect_first(values, {-1.171875f, -0.09765625f, 1.07421875f, -0.87890625f});
  EXPECT_NEAR(mean_square_error(values), 0.000831604004, 1e-11);
}

TEST(GgmlTypes, ReadsTheReferenceBlockOfQ8_0) {
  const auto values = dequantize_hex(
      "Q8_0", "4d229dfb59b61472d02e8be947a50361be1c7ad73593f14fac0a68c62481df3d9af8");
  expect_first(values, {-1.21831512f, -0.0615310669f, 1.09525299f, -0.91065979f});
  EXPECT_NEAR(mean_square_error(values), 1.12866273e-05, 1e-12);
}

TEST(GgmlTypes, ReadsTheReferenceBlockOfIq4Nl) {
  const auto values = dequantize_hex("IQ4_NL", "9822f157ce137adf249be146bd0258ce137a");
  expect_first(values, {-1.33935547f, -0.12878418f, 1.1461792f, -0.837097168f});
  EXPECT_NEAR(mean_square_error(values), 0.00390041503, 1e-10);
}

TEST(GgmlTypes, ReadsTheReferenceBlockOfQ4_K) {
  const auto values = dequantize_hex(
      "Q4_K",
      "de1a8026fffffffafff8fafaceafbfbcc2278dd3499e055ab1167cc2388de449af056bb1277cd3389ee45aa0166b"
      "c22748ad0469c0157bd1379cf358ae046ac0268be2379df359be157ad1268ce248ada0156bc1278cd3489e045ab0"
      "167bc2378de349ae056ab1267cd2389de459af15268ce248ad0459b0157bd1379ce348ae046ac0267bd2379df359"
      "be156ac1268c");
  expect_first(values, {-1.17711639f, -0.120883942f, 1.146595f, -0.965869904f, 0.301609039f,
                        1.35784149f, -0.543376923f, 0.51285553f});
  EXPECT_FLOAT_EQ(values[252], -0.290924072f);
  EXPECT_FLOAT_EQ(values[255], 0.111450195f);
  EXPECT_NEAR(mean_square_error(values), 0.0029581899, 1e-9);
}

TEST(GgmlTypes, ReadsTheReferenceBlockOfQ5_K) {
  const auto values = dequantize_hex(
      "Q5_K",
      "86165326fdfdfdfdfefbfdfeffcdedfd26cc9366c9336499324c9926cd9366d9336c9936cc9b66cdb366d9326c99"
      "36cca35f1bd6924e0ac6813df9b4602ce7a35f1bd7924e0ac5713df8a4602ce7a35f915d09c5803cf8b36f2be7a2"
      "6e1ad6914d09c4703cf7b37f2be7a25e1ad5814d702be7a35f1ad6924d09c5813cf8b4602be7935e1ad6924d09c5"
      "703cf8a46f2b5e1ad5915d09c5803cf8b36f2be6a25e1ad6914d09c4703cf7b36f2be7a25e1a");
  expect_first(values, {-1.24019432f, -0.0743846893f, 1.09142494f, -0.948741913f});
  EXPECT_NEAR(mean_square_error(values), 0.000678825764, 1e-10);
}

TEST(GgmlTypes, ReadsTheReferenceBlockOfQ6_K) {
  const auto values = dequantize_hex(
      "Q6_K",
      "45df28bc069f137cf08ad367f14ade285ed67df57c038b02aa22b931b85fd75e26ac058d037bf179d258d048ce27"
      "af2583fc741d960eb62fd840b961da53fb74d158bf37be25ad048b047bf37ad159d0c941ea63eb74fb741d951ea7"
      "2fc841c9bf35ad169b048df26be069d147cf38bd1a922c840d85ed77ff57d038b04aa22b6cb11b6cc61b71c61cb1"
      "cb6cb21b6cc6e74d3ad04d37904ae7913ae44d3a904d18b1c66cb11b6c861b71c61cb1c76cb22453f9248ef9138e"
      "f4538d2452f9248e8d81877c897a8677807f897a867a8487758e");
  expect_first(values, {-1.22369885f, -0.0453221798f, 1.08773232f, -0.906443596f});
  EXPECT_FLOAT_EQ(values[252], -0.238434076f);
  EXPECT_FLOAT_EQ(values[255], 0.0953736305f);
  EXPECT_NEAR(mean_square_error(values), 0.000159122123, 1e-11);
}

TEST(GgmlTypes, EveryQuantizedTypeEqualsTheGgufPackageBitForBit) {
  const std::string file = read_file(test::golden("checkpoint/ggml_types.bin"), 1 << 20);
  size_t at = 0;
  int types = 0;
  for (; at < file.size(); ++types) {
    uint32_t head[4];  // type, rows, cols, bytes
    std::memcpy(head, file.data() + at, sizeof(head));
    at += sizeof(head);
    std::vector<uint8_t> blocks(head[3]);
    std::memcpy(blocks.data(), file.data() + at, blocks.size());
    at += blocks.size();
    std::vector<float> expected(size_t{head[1]} * head[2]);
    std::memcpy(expected.data(), file.data() + at, expected.size() * 4);
    at += expected.size() * 4;

    const GgmlType* type = ggml_type(head[0]);
    ASSERT_NE(type, nullptr);
    const QTensor weight = type->read(Bytes::own(std::move(blocks)), head[1], head[2]);
    EXPECT_NO_THROW(validate(weight, type->name));
    const std::vector<float> values = dequantize(weight);
    ASSERT_EQ(values.size(), expected.size());
    for (size_t i = 0; i < values.size(); ++i) {
      // -0.0 and 0.0 are the same weight: an offset of -0 turns one into the other.
      ASSERT_EQ(values[i], expected[i]) << type->name << " element " << i;
    }
  }
  EXPECT_EQ(types, 13);
}

TEST(GgmlTypes, DenseWeightsAreNotCopied) {
  const Bytes bytes = Bytes::own(std::vector<uint8_t>(2 * 3 * 2));
  const QTensor weight = ggml_type("BF16")->read(bytes, 2, 3);
  EXPECT_EQ(weight.codes.data, bytes.data);
  EXPECT_EQ(weight.scheme, dense_scheme(Code::kBF16));
}

TEST(GgmlTypes, WrongSizesAreErrors) {
  const GgmlType* type = ggml_type("Q4_K");
  const auto blocks = [&](int64_t bytes) {
    return Bytes::own(std::vector<uint8_t>(static_cast<size_t>(bytes)));
  };
  EXPECT_NO_THROW(type->read(blocks(288), 2, 256));
  EXPECT_NO_THROW(type->read(blocks(288), 1, 512));
  EXPECT_THROW(type->read(blocks(287), 2, 256), Error);
  EXPECT_THROW(type->read(blocks(288), 1, 256), Error);
  EXPECT_THROW(type->read(blocks(288), 2, 128), Error);
  EXPECT_THROW(type->read(blocks(288), -2, -256), Error);
  EXPECT_THROW(type->read(blocks(0), 0, 256), Error);
}

TEST(GgmlTypes, RemovedAndUnknownTypesAreNotThere) {
  for (const uint32_t id : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u, 43u, 0xffffffffu}) {
    EXPECT_EQ(ggml_type(id), nullptr) << id;
  }
  EXPECT_EQ(ggml_type("IQ2_XXS")->read, nullptr);
}

}  // namespace
}  // namespace lowbit

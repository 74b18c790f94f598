#include "lowbit/checkpoint/formats/bitsandbytes.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "support/linears.h"

namespace lowbit {
namespace {

using test::MemorySource;
using test::random_weight;

const Json kConfig = {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}};

std::vector<uint8_t> text(const std::string& value) { return {value.begin(), value.end()}; }

class BitsandbytesGolden : public testing::TestWithParam<const char*> {};

// Files made by bitsandbytes itself: the same numbers, and the same bytes when written again.
TEST_P(BitsandbytesGolden, ReadsAndWritesTheSameBytes) {
  const MemorySource source = test::golden_linears("bitsandbytes.safetensors");
  const std::string module = GetParam();
  const QTensor weight = kBitsandbytesFormat.read(source, kConfig, module);
  EXPECT_EQ(dequantize(weight), test::floats(source.tensor(module + ".expected")));
  for (const StoredTensor& tensor : kBitsandbytesFormat.write(module, weight)) {
    if (tensor.name.find("quant_state") != std::string::npos) continue;  // spacing differs
    EXPECT_EQ(tensor.dtype, source.tensor(tensor.name).dtype) << tensor.name;
    EXPECT_EQ(tensor.shape, source.tensor(tensor.name).shape) << tensor.name;
    EXPECT_EQ(std::vector<uint8_t>(tensor.bytes.data, tensor.bytes.data + tensor.bytes.size),
              source.bytes(tensor.name))
        << tensor.name;
  }
  test::expect_no_crash(kBitsandbytesFormat, source, kConfig, module);
}

INSTANTIATE_TEST_SUITE_P(All, BitsandbytesGolden,
                         testing::Values("nf4", "nf4_crossing", "nf4_odd", "nf4_nested", "fp4",
                                         "int8"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Bitsandbytes, ReadsBackWhatItWrote) {
  for (const QuantScheme& scheme :
       {table_scheme(Code::kNf4, 64), table_scheme(Code::kFp4, 128), int_scheme(8, 128)}) {
    const QTensor weight = random_weight(scheme, 6, 128, 1, true);
    const QTensor found = test::round_trip(kBitsandbytesFormat, weight);
    EXPECT_EQ(found.scheme, weight.scheme);
    EXPECT_LT(test::relative_error(dequantize(found), dequantize(weight)), 1e-7);
  }
}

TEST(Bitsandbytes, ReadsCodesDressedAsAnotherType) {
  MemorySource source(
      kBitsandbytesFormat.write("m", random_weight(table_scheme(Code::kNf4, 64), 4, 64, 2)));
  const std::vector<float> expected = dequantize(kBitsandbytesFormat.read(source, kConfig, "m"));
  StoredTensor weight = source.tensor("m.weight");
  weight.dtype = "BF16";
  weight.shape = {64, 1};
  source.put(weight);
  EXPECT_EQ(dequantize(kBitsandbytesFormat.read(source, kConfig, "m")), expected);
}

// The text inside a tensor is as hostile as any other.
TEST(Bitsandbytes, RefusesBadQuantState) {
  const std::string name = "m.weight.quant_state.bitsandbytes__nf4";
  MemorySource source(
      kBitsandbytesFormat.write("m", random_weight(table_scheme(Code::kNf4, 64), 4, 64, 2)));
  const std::string good(reinterpret_cast<const char*>(source.tensor(name).bytes.data),
                         source.tensor(name).bytes.size);
  for (const std::string& bad :
       {std::string(), std::string("{"), std::string("[]"), std::string("{}"),
        std::string("{\"shape\":[4]}"), std::string("{\"shape\":[4,-64],\"blocksize\":64}"),
        std::string("{\"shape\":[4,64.5],\"blocksize\":64}"),
        std::string("{\"shape\":[1000000000000,1000000000000],\"blocksize\":64}"),
        std::string("{\"shape\":[18446744073709551615,2],\"blocksize\":64}"),
        std::string("{\"shape\":[4,64],\"blocksize\":0}"),
        std::string("{\"shape\":[4,64],\"blocksize\":63}"),
        std::string("{\"shape\":[4,64],\"blocksize\":\"64\"}"),
        std::string("{\"shape\":[4,128],\"blocksize\":64}"),
        std::string("{\"shape\":[4,64],\"quant_type\":\"fp4\"}"), std::string(100'000, '['),
        std::string(100'000, ' ') + good, std::string("\xff\xfe") + good}) {
    source.put({name, "U8", {static_cast<int64_t>(bad.size())}, Bytes::own(text(bad))});
    EXPECT_THROW(kBitsandbytesFormat.read(source, kConfig, "m"), Error) << bad.substr(0, 80);
  }
  source.put({name, "U8", {static_cast<int64_t>(good.size())}, Bytes::own(text(good))});
  EXPECT_NO_THROW(kBitsandbytesFormat.read(source, kConfig, "m"));
}

TEST(Bitsandbytes, RefusesForeignTablesAndLayouts) {
  MemorySource source = test::golden_linears("bitsandbytes.safetensors");
  std::vector<uint8_t> table = source.bytes("nf4.weight.quant_map");
  table[4] ^= 0x40;
  source.set_bytes("nf4.weight.quant_map", table);
  EXPECT_THROW(kBitsandbytesFormat.read(source, kConfig, "nf4"), Error);
  source.set_bytes("int8.weight_format", {1});
  EXPECT_THROW(kBitsandbytesFormat.read(source, kConfig, "int8"), Error);
}

TEST(Bitsandbytes, IsFoundByItsOldKeys) {
  EXPECT_TRUE(kBitsandbytesFormat.detect({{"load_in_8bit", true}}));
  EXPECT_FALSE(kBitsandbytesFormat.detect({{"quant_method", "awq"}}));
  EXPECT_FALSE(kBitsandbytesFormat.detect(Json()));
}

}  // namespace
}  // namespace lowbit

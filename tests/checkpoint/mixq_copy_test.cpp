// MixQ's q_weight against its programs' own steps (tools/golden/mixq_copies.py).
#include "lowbit/checkpoint/formats/mixq_copy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/mixq.h"
#include "lowbit/verify/plain_weight.h"
#include "support/linears.h"

namespace lowbit {
namespace {

using test::MemorySource;

std::vector<float> expected(const MemorySource& golden, const std::string& module,
                            const std::string& codes) {
  const StoredTensor tensor = golden.tensor(codes);
  const std::vector<float> scales = test::floats(golden.tensor(module + ".q_scale_col"));
  const int64_t cols = tensor.shape[1];
  std::vector<float> values;
  for (size_t i = 0; i < tensor.bytes.size; ++i) {
    const float code = static_cast<int8_t>(tensor.bytes.data[i]);
    values.push_back(scales[i / static_cast<size_t>(cols)] * code);
  }
  return values;
}

void expect_plain(const MemorySource& source, const Json& config, const std::string& module,
                  const std::vector<float>& values, int64_t rows, int64_t cols) {
  const PlainWeight plain = plain_weight(source, config, "mixq", module);
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t k = 0; k < cols; ++k) {
      ASSERT_EQ(plain(n, k), values[static_cast<size_t>(n * cols + k)]) << n << " " << k;
    }
  }
}

TEST(MixqCopy, BothLayoutsOfKernelsAreRead) {
  const MemorySource golden = test::golden_linears("mixq_copies.safetensors");
  for (const auto& [module, codes, bits] :
       {std::tuple("eetq", "codes8", 8), std::tuple("nibbles", "codes4", 4)}) {
    const Json config = {{"version", "MIX"}, {"w_bit", bits}};
    EXPECT_TRUE(kMixqFormat.quantized(golden, module));
    const QTensor weight = kMixqFormat.read(golden, config, module);
    EXPECT_EQ(weight.scheme, int_scheme(bits, 192));  // inputs are not rounded
    const std::vector<float> values = expected(golden, module, codes);
    EXPECT_EQ(dequantize(weight), values) << module;
    EXPECT_EQ(kMixqFormat.describe(golden, config, module).scheme, weight.scheme);
    expect_plain(golden, config, module, values, 64, 192);
    test::expect_no_crash(kMixqFormat, golden, config, module);
  }
}

TEST(MixqCopy, IsWrittenAsItsProgramsWriteIt) {
  const MemorySource golden = test::golden_linears("mixq_copies.safetensors");
  for (const std::string module : {"eetq", "nibbles"}) {
    const QTensor weight = kMixqFormat.read(golden, {{"w_bit", 8}}, module);
    for (const StoredTensor& tensor : write_mixq_copy(module, weight)) {
      EXPECT_EQ(tensor.dtype, golden.tensor(tensor.name).dtype);
      EXPECT_EQ(tensor.shape, golden.tensor(tensor.name).shape);
      EXPECT_EQ(MemorySource({tensor}).bytes(tensor.name), golden.bytes(tensor.name));
    }
  }
}

TEST(MixqCopy, SaysTheSameAsTheWeightBesideIt) {
  const CheckpointFormat& format = checkpoint_format("mixq-gpu");
  EXPECT_FALSE(format.detect(format.quantization_config(int_scheme(8, 0), {})));
  for (const int bits : {8, 4}) {
    QTensor weight = test::random_weight(int_scheme(bits, 128), 64, 128, 5);
    // Outliers that 8 bits hold exactly; with 4 their codes are 0.
    auto outliers = std::make_shared<OutlierColumns>();
    outliers->columns = {9, 100};
    std::vector<float> values;
    for (int64_t n = 0; n < 64; ++n) {
      for (const float code : {-3.f, 5.f}) {
        values.push_back(code * weight.scales[static_cast<size_t>(n)]);
      }
    }
    outliers->weight = dense_f32(values, 64, 2);
    weight.outliers = outliers;
    MemorySource source(write_mixq_copy("m", weight));
    if (bits == 4) {  // as a program that has only this copy keeps them
      source.put({"m.weight_cache", "F32", {64, 2}, outliers->weight.codes});
      source.put({"m.ind", "I32", {2}, Bytes::own({9, 0, 0, 0, 100, 0, 0, 0})});
    }
    EXPECT_LT(test::relative_error(dequantize(kMixqFormat.read(source, {{"w_bit", bits}}, "m")),
                                   dequantize(weight)),
              1e-6);
  }
}

TEST(MixqCopy, TheOlderProgramsWeightsAreRead) {
  for (const int bits : {8, 4}) {
    const QTensor weight = test::random_weight(int_scheme(bits, 40), 24, 40, 5);
    MemorySource source;
    for (StoredTensor tensor : kMixqFormat.write("m", weight)) {
      if (tensor.name == "m.weight") tensor.name = "m.q_weight";
      if (bits == 8 && tensor.name != "m.q_weight" && tensor.name != "m.scale_col") continue;
      source.put(tensor);
    }
    const QTensor found = kMixqFormat.read(source, {{"version", "MIX"}, {"w_bit", bits}}, "m");
    EXPECT_EQ(dequantize(found), dequantize(weight));
    EXPECT_EQ(found.scheme.input_bits, bits);
    expect_plain(source, {{"w_bit", bits}}, "m", dequantize(weight), 24, 40);
  }
}

TEST(MixqCopy, NeedsWholeTiles) {
  EXPECT_THROW(write_mixq_copy("m", test::random_weight(int_scheme(8, 96), 64, 96, 1)), Error);
  EXPECT_THROW(write_mixq_copy("m", test::random_weight(int_scheme(8, 64), 32, 64, 1)), Error);
  EXPECT_THROW(write_mixq_copy("m", test::random_weight(int_scheme(4, 12), 64, 12, 1)), Error);
}

}  // namespace
}  // namespace lowbit

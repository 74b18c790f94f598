// The formats gptq and compressed-tensors against golden tensors, and on damaged ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>

#include "lowbit/base/check.h"
#include "lowbit/base/checksum.h"
#include "lowbit/checkpoint/formats/compressed_tensors.h"
#include "lowbit/checkpoint/formats/gptq.h"
#include "lowbit/quantize/rtn.h"
#include "support/paths.h"
#include "support/random.h"

namespace lowbit {
namespace {

class MapSource final : public TensorSource {
 public:
  bool contains(const std::string& name) const override { return tensors.count(name) != 0; }
  StoredTensor tensor(const std::string& name) const override { return tensors.at(name); }

  void add(const std::vector<StoredTensor>& list) {
    for (const StoredTensor& tensor : list) tensors[tensor.name] = tensor;
  }
  std::map<std::string, StoredTensor> tensors;
};

struct Golden {
  MapSource source;
  std::map<std::string, Json> modules;  // {"config", "sha256"}
};

Golden load(const std::string& file) {
  Golden golden;
  const SafetensorsFile stored(test::golden("checkpoint/" + file));
  for (const auto& [name, entry] : stored.header().tensors) {
    golden.source.tensors[name] = stored.tensor(name);
  }
  for (const auto& [module, text] : stored.header().metadata) {
    golden.modules[module] = parse_json(text, file);
  }
  return golden;
}

std::string digest(const QTensor& weight) {
  std::vector<float> values = dequantize(weight);
  for (float& value : values) value += 0.f;  // -0 to 0
  Sha256 hash;
  hash.update(std::span(reinterpret_cast<const uint8_t*>(values.data()), values.size() * 4));
  return hash.hex();
}

std::string bytes_of(const StoredTensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.bytes.data), tensor.bytes.size);
}

void expect_reads_golden(const std::string& file, const CheckpointFormat& format, size_t count) {
  const Golden golden = load(file);
  EXPECT_EQ(golden.modules.size(), count);
  for (const auto& [module, facts] : golden.modules) {
    SCOPED_TRACE(module);
    EXPECT_TRUE(format.detect(facts["config"]));
    EXPECT_TRUE(format.quantized(golden.source, module));
    const QTensor weight = format.read(golden.source, facts["config"], module);
    EXPECT_EQ(digest(weight), facts["sha256"].get<std::string>());
    EXPECT_EQ(weight.scheme.zero == Zero::kInt,
              module.find("asym") != std::string::npos || module == "w3_ordered");
    const QTensor outline = format.describe(golden.source, facts["config"], module);
    EXPECT_EQ(outline.scheme, weight.scheme);
    EXPECT_EQ(outline.cols, weight.cols);
  }
}

// What is read and written again is the same, byte for byte.
void expect_writes_golden(const std::string& file, const CheckpointFormat& format,
                          const std::function<bool(const std::string&)>& same) {
  const Golden golden = load(file);
  for (const auto& [module, facts] : golden.modules) {
    if (!same(module)) continue;
    SCOPED_TRACE(module);
    const QTensor weight = format.read(golden.source, facts["config"], module);
    for (const StoredTensor& tensor : format.write(module, weight)) {
      const StoredTensor& expected = golden.source.tensors.at(tensor.name);
      EXPECT_EQ(tensor.dtype, expected.dtype) << tensor.name;
      EXPECT_EQ(tensor.shape, expected.shape) << tensor.name;
      EXPECT_EQ(bytes_of(tensor), bytes_of(expected)) << tensor.name;
    }
  }
}

TEST(Gptq, ReadsGoldenTensors) { expect_reads_golden("gptq.safetensors", kGptqFormat, 18); }

TEST(Gptq, WritesGoldenTensors) {
  expect_writes_golden("gptq.safetensors", kGptqFormat, [](const std::string& module) {
    return module.find("_v2") == std::string::npos && module != "w3_ordered";
  });
}

TEST(CompressedTensors, ReadsGoldenTensors) {
  expect_reads_golden("compressed_tensors.safetensors", kCompressedTensorsFormat, 33);
}

TEST(CompressedTensors, WritesGoldenTensors) {
  expect_writes_golden("compressed_tensors.safetensors", kCompressedTensorsFormat,
                       [](const std::string& module) {
                         return module.find("old") == std::string::npos &&
                                module.find("tensor") == std::string::npos;
                       });
}

QTensor random_weight(int bits, int64_t group_size, Zero zero, int64_t rows = 64,
                      int64_t cols = 128) {
  const std::vector<float> values = test::gaussian(rows * cols, 9);
  return Rtn().quantize({"m", rows, cols, values, nullptr},
                        int_scheme(bits, group_size > 0 ? group_size : cols, zero));
}

Json config_of(const CheckpointFormat& format, const QTensor& weight, int64_t group_size) {
  QuantScheme scheme = weight.scheme;
  scheme.group_size = std::max<int64_t>(group_size, 0);
  return format.quantization_config(scheme, {"lm_head"});
}

TEST(PackedFormats, EverySchemeSurvivesTheRoundTrip) {
  for (const CheckpointFormat* format : {&kGptqFormat, &kCompressedTensorsFormat}) {
    for (int bits = 2; bits <= 8; ++bits) {
      if (format == &kGptqFormat && bits != 2 && bits != 3 && bits != 4 && bits != 8) continue;
      for (const int64_t group_size : {32, 64, 128, -1}) {
        for (const Zero zero : {Zero::kNone, Zero::kInt}) {
          const QTensor weight = random_weight(bits, group_size, zero);
          MapSource source;
          source.add(format->write("m", weight));
          const QTensor back = format->read(source, config_of(*format, weight, group_size), "m");
          EXPECT_EQ(back.scheme, weight.scheme) << format->name << " " << name_of(weight.scheme);
          EXPECT_EQ(dequantize(back), dequantize(weight)) << format->name << " " << bits;
        }
      }
    }
  }
}

TEST(PackedFormats, ColumnOrderSurvivesTheRoundTrip) {
  for (const CheckpointFormat* format : {&kGptqFormat, &kCompressedTensorsFormat}) {
    QTensor weight = random_weight(3, 32, Zero::kInt);
    for (int32_t k = 0; k < 128; ++k) weight.input_order.push_back((k * 37 + 5) % 128);
    MapSource source;
    source.add(format->write("m", weight));
    const QTensor back = format->read(source, config_of(*format, weight, 32), "m");
    EXPECT_EQ(dequantize(back), dequantize(weight)) << format->name;
  }
}

TEST(Gptq, PacksTheWordsOfTheRule) {
  // Three bits: 32 codes i mod 8 make these three words.
  QTensor weight = random_weight(3, 32, Zero::kNone, 32, 32);
  std::vector<uint8_t> codes(weight.codes.size);
  for (int64_t n = 0; n < 32; ++n) {
    const uint32_t words[3] = {0x88FAC688u, 0xC688FAC6u, 0xFAC688FAu};
    std::memcpy(codes.data() + n * 12, words, 12);
  }
  weight.codes = Bytes::own(codes);
  const std::vector<float> values = dequantize(weight);
  for (int k = 0; k < 32; ++k) EXPECT_EQ(values[k], weight.scales[0] * (k % 8 - 4));
  const auto tensors = kGptqFormat.write("m", weight);
  uint32_t word;
  std::memcpy(&word, tensors[0].bytes.data + 32 * 4, 4);
  EXPECT_EQ(word, 0xC688FAC6u);
  std::memcpy(&word, tensors[1].bytes.data, 4);  // zeros: 4 - 1 in three bits
  EXPECT_EQ(word, 0xDB6DB6DBu);
}

TEST(Gptq, AZeroOfZeroWrapsWithinItsField) {
  QTensor weight = random_weight(4, 32, Zero::kInt, 32, 32);
  std::fill(weight.zeros.begin(), weight.zeros.end(), uint8_t{5});
  weight.zeros[0] = 0;
  MapSource source;
  source.add(kGptqFormat.write("m", weight));
  uint32_t word;
  std::memcpy(&word, source.tensors["m.qzeros"].bytes.data, 4);
  EXPECT_EQ(word, 0x4444444Fu);
  EXPECT_EQ(kGptqFormat.read(source, config_of(kGptqFormat, weight, 32), "m").zeros, weight.zeros);
}

TEST(Gptq, AnEmptyGroupIndexMeansNaturalOrder) {
  const QTensor weight = random_weight(4, 32, Zero::kNone);
  MapSource source;
  source.add(kGptqFormat.write("m", weight));
  const Json config = config_of(kGptqFormat, weight, 32);
  StoredTensor& index = source.tensors["m.g_idx"];
  index.bytes = Bytes::own(std::vector<uint8_t>(index.bytes.size));
  EXPECT_EQ(dequantize(kGptqFormat.read(source, config, "m")), dequantize(weight));
  source.tensors.erase("m.g_idx");
  EXPECT_EQ(dequantize(kGptqFormat.read(source, config, "m")), dequantize(weight));
}

using Damage = std::function<void(MapSource&, Json&)>;

std::string error_of(const CheckpointFormat& format, const Damage& damage) {
  const QTensor weight = random_weight(4, 32, Zero::kInt);
  MapSource source;
  source.add(format.write("m", weight));
  Json config = config_of(format, weight, 32);
  damage(source, config);
  try {
    format.read(source, config, "m");
  } catch (const Error& error) {
    EXPECT_TRUE(error.kind() == ErrorKind::kCorruptFile || error.kind() == ErrorKind::kUnsupported);
    return error.what();
  }
  return "";
}

TEST(Gptq, RefusesOtherLayoutsByName) {
  for (const char* layout : {"marlin", "bitblas", "gptq_p"}) {
    const std::string error = error_of(
        kGptqFormat, [&](MapSource&, Json& config) { config["checkpoint_format"] = layout; });
    EXPECT_NE(error.find(layout), std::string::npos) << error;
  }
  EXPECT_NE(
      error_of(kGptqFormat, [](MapSource&, Json& config) { config["is_marlin_format"] = true; })
          .find("marlin"),
      std::string::npos);
  EXPECT_NE(error_of(kGptqFormat, [](MapSource&, Json& config) { config["pack_dtype"] = "int16"; })
                .find("int16"),
            std::string::npos);
}

TEST(Gptq, ToleratesKeysItDoesNotNeed) {
  EXPECT_EQ(error_of(kGptqFormat,
                     [](MapSource&, Json& config) {
                       config["dynamic"] = {{"-:.*lm_head", Json::object()}};
                       config["modules_in_block_to_quantize"] = Json::array({"q_proj"});
                     }),
            "");
}

TEST(PackedFormats, EveryWrongShapeOrTypeIsAnError) {
  for (const CheckpointFormat* format : {&kGptqFormat, &kCompressedTensorsFormat}) {
    std::vector<std::string> names;
    error_of(*format, [&](MapSource& source, Json&) {
      for (const auto& [name, tensor] : source.tensors) names.push_back(name);
    });
    for (const std::string& name : names) {
      SCOPED_TRACE(name);
      const std::string gone =
          error_of(*format, [&](MapSource& source, Json&) { source.tensors.erase(name); });
      EXPECT_TRUE(gone != "" || name == "m.g_idx" || name == "m.weight_zero_point");
      for (const std::vector<int64_t>& shape :
           std::vector<std::vector<int64_t>>{{}, {0}, {1}, {7, 3}, {0, 64}, {-1, -1}, {1, 1, 1}}) {
        EXPECT_NE(error_of(*format,
                           [&](MapSource& source, Json&) { source.tensors[name].shape = shape; }),
                  "")
            << shape.size();
      }
      EXPECT_NE(
          error_of(*format, [&](MapSource& source, Json&) { source.tensors[name].dtype = "U8"; }),
          "");
    }
  }
}

TEST(PackedFormats, GroupsThatContradictTheConfigAreAnError) {
  EXPECT_NE(error_of(kGptqFormat, [](MapSource&, Json& config) { config["group_size"] = 64; }), "");
  EXPECT_NE(error_of(kGptqFormat, [](MapSource&, Json& config) { config["bits"] = 8; }), "");
  EXPECT_NE(error_of(kCompressedTensorsFormat,
                     [](MapSource&, Json& config) {
                       config["config_groups"]["group_0"]["weights"]["group_size"] = 64;
                     }),
            "");
  EXPECT_NE(error_of(kCompressedTensorsFormat,
                     [](MapSource&, Json& config) {
                       config["config_groups"]["group_0"]["weights"]["num_bits"] = 3;
                     }),
            "");
}

TEST(CompressedTensors, RefusesOtherFormatsByName) {
  for (const char* name : {"float-quantized", "int-quantized", "marlin-24"}) {
    const std::string error = error_of(kCompressedTensorsFormat,
                                       [&](MapSource&, Json& config) { config["format"] = name; });
    EXPECT_NE(error.find(name), std::string::npos) << error;
  }
  EXPECT_NE(error_of(kCompressedTensorsFormat,
                     [](MapSource&, Json& config) {
                       config["sparsity_config"] = {{"format", "sparse-24-bitmask"}};
                     })
                .find("sparse-24"),
            std::string::npos);
}

TEST(PackedFormats, RefuseToWriteWhatTheyCannotHold) {
  EXPECT_THROW(kGptqFormat.write("m", random_weight(5, 32, Zero::kNone)), Error);
  EXPECT_THROW(kGptqFormat.write("m", random_weight(4, 32, Zero::kNone, 40, 128)), Error);
  QTensor inexact = random_weight(4, 32, Zero::kNone);
  inexact.scales[3] = 0.1f;
  EXPECT_THROW(kCompressedTensorsFormat.write("m", inexact), Error);
}

}  // namespace
}  // namespace lowbit

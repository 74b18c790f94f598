// MixQ: its tensors and its arithmetic against a plain model of both in torch
// (tools/golden/mixq.py).
#include "lowbit/quantize/mixq.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/checkpoint/formats/mixq.h"
#include "lowbit/checkpoint/paths.h"
#include "lowbit/model/model.h"
#include "lowbit/quantize/act_scales.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/verify/verify.h"
#include "support/backends.h"
#include "support/golden_llama.h"
#include "support/linears.h"
#include "support/quantize_runs.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

using test::MemorySource;

constexpr int64_t kOutliers = 8;  // of the golden file's linears

const MemorySource& golden() {
  static const MemorySource source = test::golden_linears("mixq.safetensors");
  return source;
}

// The tensors whose names begin with `prefix`, without it.
std::vector<StoredTensor> golden_part(const std::string& prefix) {
  std::vector<StoredTensor> part;
  for (const auto& [name, tensor] : golden().all()) {
    if (name.rfind(prefix, 0) != 0) continue;
    part.push_back(tensor);
    part.back().name = name.substr(prefix.size());
  }
  return part;
}

std::vector<LinearSlot> golden_slots() {
  std::vector<LinearSlot> slots;
  const ModelConfig config = parse_model_config(test::golden_llama_config(), nullptr, "test");
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    for (const auto& group : block_linears(config, block)) {
      slots.insert(slots.end(), group.begin(), group.end());
    }
  }
  return slots;
}

void expect_tensors(const std::vector<StoredTensor>& found, const std::string& prefix) {
  for (const StoredTensor& tensor : found) {
    const StoredTensor expected = golden().tensor(prefix + tensor.name);
    EXPECT_EQ(tensor.dtype, expected.dtype) << tensor.name;
    EXPECT_EQ(tensor.shape, expected.shape) << tensor.name;
    EXPECT_EQ(MemorySource({tensor}).bytes(tensor.name), golden().bytes(prefix + tensor.name))
        << tensor.name;
  }
}

TEST(MixQ, MakesTheBytesOfThePlainDefinition) {
  for (const int bits : {8, 4}) {
    for (const LinearSlot& slot : golden_slots()) {
      const auto weight = test::floats(golden().tensor("original." + slot.module + ".weight"));
      const auto scales = test::floats(golden().tensor("act_scales." + slot.module));
      const QuantScheme scheme =
          for_shape(mixq_module_scheme(int_scheme(bits, 0), slot.module), slot.rows, slot.cols);
      const QTensor made =
          quantize_with_outliers({slot.module, slot.rows, slot.cols, weight, nullptr}, scheme,
                                 outlier_columns(scales, kOutliers));
      const auto tensors = kMixqFormat.write(slot.module, made);
      EXPECT_EQ(tensors.size(), 4u);
      expect_tensors(tensors, bits == 8 ? "w8." : "w4.");
    }
  }
}

TEST(MixQ, AFormatReadIsWrittenWithTheSameBytes) {
  for (const std::string prefix : {"w8.", "w4."}) {
    const MemorySource source(golden_part(prefix));
    const Json config = {{"version", "MIX"}, {"w_bit", prefix == "w8." ? 8 : 4}};
    EXPECT_TRUE(kMixqFormat.detect(config));
    for (const LinearSlot& slot : golden_slots()) {
      EXPECT_TRUE(kMixqFormat.quantized(source, slot.module));
      const QTensor weight = kMixqFormat.read(source, config, slot.module);
      const bool eight = prefix == "w8." || slot.module.ends_with("down_proj");
      EXPECT_EQ(weight.scheme.bits, eight ? 8 : 4);
      EXPECT_EQ(weight.scheme.input_bits, eight ? 8 : 4);
      EXPECT_EQ(kMixqFormat.describe(source, config, slot.module).scheme, weight.scheme);
      expect_tensors(kMixqFormat.write(slot.module, weight), prefix);
    }
  }
}

TEST(MixQ, OutlierColumnsComeFromTheirCacheWhateverTheCodesSay) {
  const MemorySource source(golden_part("w8."));
  const std::string module = golden_slots()[0].module;
  const QTensor weight = kMixqFormat.read(source, {{"w_bit", 8}}, module);
  const std::vector<float> dense = dequantize(weight);
  const std::vector<float> cache = test::floats(source.tensor(module + ".weight_cache"));
  for (int64_t n = 0; n < weight.rows; ++n) {
    for (int64_t j = 0; j < kOutliers; ++j) {
      const int32_t column = weight.outliers->columns[static_cast<size_t>(j)];
      EXPECT_EQ(dense[static_cast<size_t>(n * weight.cols + column)],
                cache[static_cast<size_t>(n * kOutliers + j)]);
    }
  }
}

TEST(MixQ, ReadsBackWhatItWrote) {
  for (const int bits : {8, 4}) {
    for (const int inputs : {0, 4, 8}) {
      if (inputs != 0 && inputs < bits) continue;
      QuantScheme scheme = int_scheme(bits, 40);
      scheme.input_bits = inputs;
      QTensor weight = test::random_weight(scheme, 6, 40, 5);
      test::expect_same(test::round_trip(kMixqFormat, weight), weight);  // no outliers
      auto outliers = std::make_shared<OutlierColumns>();
      outliers->columns = {39, 0, 7};
      outliers->weight = test::random_weight(dense_scheme(Code::kF16), 6, 3, 6);
      weight.outliers = outliers;
      test::expect_same(test::round_trip(kMixqFormat, weight), weight);
    }
  }
}

class MixQDamage : public testing::Test {
 protected:
  std::string error_with(const StoredTensor& tensor) const {
    MemorySource damaged = source_;
    damaged.put(tensor);
    return error_of(damaged, {{"w_bit", 8}});
  }
  std::string error_of(const MemorySource& source, const Json& config) const {
    try {
      kMixqFormat.read(source, config, module_);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  StoredTensor indices(std::vector<int32_t> values) const {
    const auto count = static_cast<int64_t>(values.size());
    std::vector<uint8_t> bytes(values.size() * 4);
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return {module_ + ".ind", "I32", {count}, Bytes::own(std::move(bytes))};
  }

  const MemorySource source_{golden_part("w8.")};
  const std::string module_ = golden_slots()[0].module;
};

TEST_F(MixQDamage, OutlierColumnsThatCannotBeAreNamed) {
  EXPECT_EQ(error_with(indices({31, 3, 0, 9, 8, 7, 6, 5})), "");  // any order
  for (const auto& [column, text] : std::map<int32_t, std::string>{
           {32, "column 32"}, {-1, "column -1"}, {INT32_MAX, "column 2147483647"}, {3, "twice"}}) {
    const std::string error = error_with(indices({0, 1, 2, 3, 4, 5, 6, column}));
    EXPECT_NE(error.find(text), std::string::npos) << error;
    EXPECT_NE(error.find(module_), std::string::npos) << error;
  }
  EXPECT_NE(error_with(indices({0, 1, 2})).find("weight_cache"), std::string::npos);
  EXPECT_NE(error_with(indices(std::vector<int32_t>(40))).find("40"), std::string::npos);
}

TEST_F(MixQDamage, WeightsAndScalesThatAreNotFiniteAreNamed) {
  StoredTensor cache = source_.tensor(module_ + ".weight_cache");
  std::vector<uint8_t> bytes(cache.bytes.data, cache.bytes.data + cache.bytes.size);
  bytes[2 * (kOutliers + 1)] = 0;
  bytes[2 * (kOutliers + 1) + 1] = 0x7c;  // infinity in row 1, the second outlier column
  cache.bytes = Bytes::own(std::move(bytes));
  EXPECT_NE(error_with(cache).find("row 1"), std::string::npos) << error_with(cache);
  StoredTensor scale = source_.tensor(module_ + ".scale_col");
  scale.bytes = Bytes::own(std::vector<uint8_t>(scale.bytes.size, 0x7f));
  EXPECT_NE(error_with(scale).find("scale"), std::string::npos);
}

TEST_F(MixQDamage, NothingCrashes) {
  for (const int bits : {8, 4}) {
    const MemorySource source(golden_part(bits == 8 ? "w8." : "w4."));
    test::expect_no_crash(kMixqFormat, source, {{"w_bit", bits}}, module_);
  }
}

TEST_F(MixQDamage, DescriptionsAndTensorsOfGpusAreRefused) {
  for (const Json& config : {Json{{"w_bit", 3}}, Json{{"w_bit", 8}, {"a_bit", 5}},
                             Json{{"w_bit", "eight"}}, Json{{"w_bit", 4}, {"a_bit", -4}}}) {
    EXPECT_NE(error_of(source_, config), "") << config;
  }
  MemorySource gpu;
  StoredTensor scale = source_.tensor(module_ + ".scale_col");
  scale.name = module_ + ".q_scale_col";
  gpu.put(scale);
  EXPECT_TRUE(kMixqFormat.quantized(gpu, module_));
  EXPECT_NE(error_of(gpu, {{"w_bit", 8}}).find("q_weight"), std::string::npos);
}

// A folder as MixQ leaves it: what it says of the quantization is in quant_config.json alone.
class MixQModel : public testing::Test {
 protected:
  void write(const std::string& prefix, const Json& quant_config) const {
    fs::create_directories(model());
    std::vector<StoredTensor> tensors = golden_part(prefix);
    const MemorySource quantized(tensors);
    for (StoredTensor& tensor : golden_part("original.")) {
      if (!quantized.contains(tensor.name)) tensors.push_back(std::move(tensor));
    }
    write_safetensors(fs::path(model()) / "model.safetensors", std::move(tensors));
    test::write_text(model() + "/config.json", dump_json(test::golden_llama_config()));
    test::write_text(model() + "/quant_config.json", dump_json(quant_config));
    test::write_text(model() + "/tokenizer.json", test::tiny_tokenizer_json(264));
  }

  std::vector<float> logits(const std::string& backend, Activations activations) const {
    const auto checkpoint = open_checkpoint(model());
    EXPECT_EQ(checkpoint->format(), "mixq");
    const auto machine = make_backend(backend, {2, activations});
    Model loaded(*checkpoint, *machine, {.context = 64, .progress = false});
    description_ = machine->description();
    const StoredTensor tokens = golden().tensor("tokens");
    std::vector<int32_t> ids(tokens.bytes.size / 4);
    std::memcpy(ids.data(), tokens.bytes.data, tokens.bytes.size);
    return test::run_chunks(loaded, ids, {static_cast<int64_t>(ids.size())}, DType::kF32);
  }

  std::string model() const { return folder_ / "model"; }

  test::TemporaryFolder folder_;
  mutable std::string description_;
};

TEST_F(MixQModel, LogitsEqualThePlainModels) {
  struct Version {
    const char *name, *prefix;
    Json config;
  };
  for (const Version& version :
       {Version{"w8a8", "w8.", {{"version", "MIX"}, {"w_bit", 8}}},
        Version{"w4a4", "w4.", {{"version", "MIX"}, {"w_bit", 4}}},
        Version{"w4a8", "w4.", {{"version", "MIX"}, {"w_bit", 4}, {"a_bit", 8}}}}) {
    write(version.prefix, version.config);
    const auto expected = test::floats(golden().tensor(concat("logits.", version.name)));
    for (const std::string backend : {"ref", "cpu"}) {
      EXPECT_LT(test::relative_error(logits(backend, Activations::kDefault), expected), 1e-3)
          << version.name << " on " << backend;
      EXPECT_NE(description_.find("where the checkpoint says so"), std::string::npos);
    }
  }
}

TEST_F(MixQModel, WithoutRoundedInputsOnlyTheWeightsDiffer) {
  write("w8.", {{"version", "MIX"}, {"w_bit", 8}});
  const auto original = test::floats(golden().tensor("logits.original"));
  const auto exact = logits("ref", Activations::kF32);
  EXPECT_NE(description_.find("not the 8 bits"), std::string::npos) << description_;
  EXPECT_LT(test::relative_error(exact, original), 0.013);
  EXPECT_LT(test::relative_error(logits("cpu", Activations::kF32), exact), 1e-5);
  // int8 in groups of 32, outliers still apart.
  EXPECT_LT(test::relative_error(logits("cpu", Activations::kInt8), exact), 0.02);
}

class MixQPipeline : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_folder(model(), test::tinier_folder_config());
    std::string text;
    for (int i = 0; i < 200; ++i) text += concat("word ", i * i % 71, i % 9 == 0 ? ".\n" : " ");
    test::write_text(folder_ / "text.txt", text);
  }
  std::string model() const { return folder_ / "model"; }
  std::string out() const { return folder_ / "out"; }

  QuantizeOptions options(int bits) const {
    QuantizeOptions options;
    options.method = "mixq";
    options.bits = bits;
    options.threads = 1;
    options.force = true;
    options.method_options.mixq.outliers = 8;
    options.calibration = {.path = folder_ / "text.txt", .samples = 3, .seqlen = 32};
    return options;
  }
  std::string error_of(const QuantizeOptions& options) const {
    return test::quantize_error(model(), out(), options);
  }

  test::TemporaryFolder folder_;
};

TEST_F(MixQPipeline, ExportsAreSoundAndSayHowInputsAreRounded) {
  struct Row {
    int bits, input_bits, expected, expected_down;
  };
  for (const Row& row : {Row{8, 0, 8, 8}, Row{4, 0, 4, 8}, Row{4, 8, 8, 8}, Row{8, 16, 0, 0}}) {
    QuantizeOptions chosen = options(row.bits);
    chosen.input_bits = row.input_bits;
    quantize_checkpoint(model(), out(), chosen);
    EXPECT_TRUE(path_exists(fs::path(out()) / "quant_config.json"));
    const VerifyReport report = verify_checkpoint(out(), model(), 1);
    EXPECT_TRUE(report.problems.empty()) << report.problems.front();
    EXPECT_EQ(report.format, "mixq");
    for (const VerifyReport::Layer& layer : report.layers) {
      EXPECT_EQ(layer.read_twice, layer.module.find("_proj") != std::string::npos) << layer.module;
    }
    const auto made = open_checkpoint(out());
    const std::string block = "model.layers.1.";
    const QTensor up = made->load_linear(block + "mlp.up_proj", 96, 64).weight;
    const QTensor down = made->load_linear(block + "mlp.down_proj", 64, 96).weight;
    EXPECT_EQ(up.scheme.bits, row.bits);
    EXPECT_EQ(up.scheme.input_bits, row.expected);
    EXPECT_EQ(down.scheme.bits, 8);
    EXPECT_EQ(down.scheme.input_bits, row.expected_down);
    EXPECT_EQ(up.outliers->columns.size(), 8u);
    EXPECT_EQ(made->load_linear(block + "mlp.gate_proj", 96, 64).weight.outliers->columns,
              up.outliers->columns);
  }
}

TEST_F(MixQPipeline, OutliersComeFromActScalesWhereTheyAreGiven) {
  QuantizeOptions chosen = options(4);
  chosen.calibration.path.clear();
  EXPECT_NE(error_of(chosen).find("--calibration"), std::string::npos);
  ActScales scales;
  for (int block = 0; block < 2; ++block) {
    for (const char* name : {"self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj"}) {
      std::vector<float>& of_module = scales[concat("model.layers.", block, ".", name)];
      for (int k = 0; k < 64; ++k) of_module.push_back(static_cast<float>(k * 37 % 64));
    }
    std::vector<float>& down = scales[concat("model.layers.", block, ".mlp.down_proj")];
    for (int k = 0; k < 96; ++k) down.push_back(static_cast<float>(96 - k));
  }
  write_act_scales(folder_ / "scales.safetensors", scales);
  chosen.act_scales = folder_ / "scales.safetensors";
  quantize_checkpoint(model(), out(), chosen);
  const auto made = open_checkpoint(out());
  const auto columns = [&](const char* name, int64_t rows, int64_t cols) {
    return made->load_linear(name, rows, cols).weight.outliers->columns;
  };
  EXPECT_EQ(columns("model.layers.1.mlp.down_proj", 64, 96),
            (std::vector<int32_t>{7, 6, 5, 4, 3, 2, 1, 0}));
  EXPECT_EQ(columns("model.layers.1.mlp.up_proj", 96, 64),
            outlier_columns(scales.at("model.layers.1.mlp.gate_proj"), 8));
}

TEST_F(MixQPipeline, OutliersOfATextDoNotDependOnThreads) {
  QuantizeOptions chosen = options(8);
  quantize_checkpoint(model(), out(), chosen);
  const auto expected = test::snapshot(out());
  chosen.threads = 2;
  quantize_checkpoint(model(), out(), chosen);
  EXPECT_EQ(test::snapshot(out()), expected);
}

TEST_F(MixQPipeline, WithoutOutliersItNeedsNoData) {
  QuantizeOptions chosen = options(4);
  chosen.calibration.path.clear();
  chosen.method_options.mixq.outliers = 0;
  quantize_checkpoint(model(), out(), chosen);
  EXPECT_TRUE(verify_checkpoint(out(), "", 1).problems.empty());
  const auto made = open_checkpoint(out());
  EXPECT_EQ(made->load_linear("model.layers.0.mlp.up_proj", 96, 64).weight.outliers, nullptr);
}

TEST_F(MixQPipeline, WhatIsImpossibleIsSaid) {
  const auto error_with = [&](const auto& change) {
    QuantizeOptions chosen = options(8);
    change(chosen);
    return error_of(chosen);
  };
  EXPECT_NE(error_with([](auto& o) { o.bits = 3; }).find("4 and 8"), std::string::npos);
  EXPECT_NE(error_with([](auto& o) { o.format = "gptq"; }).find("--format mixq"),
            std::string::npos);
  EXPECT_NE(error_with([](auto& o) { o.input_bits = 4; }).find("4 bits for weights of 8"),
            std::string::npos);
  EXPECT_NE(error_with([](auto& o) { o.method_options.mixq.outliers = 64; }).find("--outliers"),
            std::string::npos);
  EXPECT_NE(error_with([](auto& o) {
              o.method = "rtn";
              o.format = "gptq";
              o.input_bits = 8;
            }).find("compressed-tensors"),
            std::string::npos);
}

}  // namespace
}  // namespace lowbit

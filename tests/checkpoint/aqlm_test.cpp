// AQLM against the aqlm package's own reading of the same tensors (tools/golden/aqlm_linears.py).
#include "lowbit/checkpoint/formats/aqlm.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/base/checksum.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/model.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/verify/plain_weight.h"
#include "lowbit/verify/verify.h"
#include "support/backends.h"
#include "support/golden_llama.h"
#include "support/linears.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

using test::MemorySource;

const SafetensorsFile& golden_file() {
  static const SafetensorsFile file(test::golden("formats/aqlm.safetensors"));
  return file;
}

Json facts_of(const std::string& module) {
  return parse_json(golden_file().header().metadata.at(module), module);
}

// The golden file's tensors, with the large codebooks that it leaves out.
MemorySource make_golden_source() {
  MemorySource source = test::golden_linears("aqlm.safetensors");
  for (const auto& [module, text] : golden_file().header().metadata) {
    if (module == "model" || source.contains(module + ".codebooks")) continue;
    const Json config = facts_of(module)["config"];
    const int64_t count = config["num_codebooks"], rows = config["out_group_size"],
                  cols = config["in_group_size"];
    const int64_t size = int64_t{1} << config["nbits_per_codebook"].get<int>();
    std::vector<uint8_t> bytes;
    for (uint32_t i = 0; i < static_cast<uint32_t>(count * size * rows * cols); ++i) {
      const float value = static_cast<float>(i * 2654435761u >> 21) / 1024 - 1;
      const uint16_t half = f32_to_f16(value);
      bytes.push_back(static_cast<uint8_t>(half));
      bytes.push_back(static_cast<uint8_t>(half >> 8));
    }
    source.put(
        {module + ".codebooks", "F16", {count, size, rows, cols}, Bytes::own(std::move(bytes))});
  }
  return source;
}

const MemorySource& golden_source() {
  static const MemorySource source = make_golden_source();
  return source;
}

class AqlmGolden : public testing::TestWithParam<const char*> {
 protected:
  const std::string module_ = GetParam();
  const Json facts_ = facts_of(module_);
  const MemorySource& source_ = golden_source();
};

TEST_P(AqlmGolden, ReadsWhatThePackageReadsBitForBit) {
  EXPECT_TRUE(kAqlmFormat.detect(facts_["config"]));
  EXPECT_TRUE(kAqlmFormat.quantized(source_, module_));
  const QTensor weight = kAqlmFormat.read(source_, facts_["config"], module_);
  EXPECT_EQ(weight.rows, facts_["rows"].get<int64_t>());
  EXPECT_EQ(weight.cols, facts_["cols"].get<int64_t>());
  std::vector<float> values = dequantize(weight);
  for (float& value : values) value += 0.f;
  Sha256 hash;
  hash.update(std::span(reinterpret_cast<const uint8_t*>(values.data()), values.size() * 4));
  EXPECT_EQ(hash.hex(), facts_["sha256"].get<std::string>());
  const QTensor outline = kAqlmFormat.describe(source_, facts_["config"], module_);
  EXPECT_EQ(outline.scheme, weight.scheme);
  EXPECT_EQ(outline.rows, weight.rows);
  EXPECT_EQ(outline.cols, weight.cols);
}

TEST_P(AqlmGolden, TheSecondReadingAgrees) {
  const QTensor weight = kAqlmFormat.read(source_, facts_["config"], module_);
  const std::vector<float> values = dequantize(weight);
  const PlainWeight plain = plain_weight(source_, facts_["config"], "aqlm", module_);
  for (int64_t n = 0; n < weight.rows; ++n) {
    for (int64_t k = 0; k < weight.cols; ++k) {
      ASSERT_NEAR(plain(n, k), values[static_cast<size_t>(n * weight.cols + k)], 1e-6);
    }
  }
}

TEST_P(AqlmGolden, MultipliesAsItsRowsSay) {
  const QTensor weight = kAqlmFormat.read(source_, facts_["config"], module_);
  const std::vector<float> bias = test::gaussian(weight.rows, 4);
  const LinearWeight linear{module_, weight, bias};
  const LinearWeight dense{module_, dense_f32(dequantize(weight), weight.rows, weight.cols), bias};
  const std::vector<float> x = test::gaussian(5 * weight.cols, 3);
  const auto multiply = [&](const std::string& name, int threads, const LinearWeight& one) {
    const auto backend = make_backend(name, {threads, Activations::kF32});
    const auto made = backend->make_linear({one, one});
    Tensor y = backend->allocate(5, 2 * weight.rows);
    made->forward(test::tensor_of(*backend, x, 5), y);
    std::vector<float> values = test::values_of(*backend, y);
    Tensor rows = backend->allocate(2, weight.cols);
    const std::vector<int32_t> ids = {1, static_cast<int32_t>(2 * weight.rows - 1)};
    made->embed(ids, rows);
    const std::vector<float> embedded = test::values_of(*backend, rows);
    values.insert(values.end(), embedded.begin(), embedded.end());
    return values;
  };
  for (const std::string name : {"cpu", "ref"}) {
    EXPECT_EQ(multiply(name, 1, linear), multiply(name, 2, dense)) << name;
  }
  const auto backend = make_backend("cpu", {1});
  EXPECT_NE(backend->make_linear({linear})->kernel().find("additive"), std::string::npos);
}

TEST_P(AqlmGolden, DamageIsAnError) {
  test::expect_no_crash(kAqlmFormat, source_, facts_["config"], module_);
}

INSTANTIATE_TEST_SUITE_P(All, AqlmGolden, testing::Values("1x16", "2x8", "1x15", "4x5", "2x10_r2"),
                         [](const auto& info) { return "Of" + std::string(info.param); });

TEST(Aqlm, ConfigsThatCannotBeAreRefused) {
  const MemorySource& source = golden_source();
  for (const char* key :
       {"num_codebooks", "nbits_per_codebook", "out_group_size", "in_group_size"}) {
    for (const Json& value : {Json(0), Json(-1), Json(3), Json(17), Json(1 << 20), Json("two")}) {
      Json config = facts_of("2x8")["config"];
      config[key] = value;
      EXPECT_THROW(kAqlmFormat.read(source, config, "2x8"), Error) << key << " " << value;
    }
  }
}

TEST(Aqlm, NamesItsScheme) {
  EXPECT_EQ(name_of(additive_scheme(1, 16, 1, 8, 64)), "aqlm_1x16_g8");
  EXPECT_EQ(name_of(additive_scheme(2, 8, 2, 4, 64)), "aqlm_2x8_g4_r2");
  const QTensor weight = kAqlmFormat.read(golden_source(), facts_of("2x8")["config"], "2x8");
  EXPECT_EQ(weight.code_rows() * weight.row_bytes() * 8, 2 * weight.rows * weight.cols);
}

class AqlmModel : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(model());
    std::vector<StoredTensor> tensors;
    for (const auto& [name, tensor] : golden_source().all()) {
      if (name.rfind("model.", 0) != 0) continue;
      tensors.push_back(tensor);
      tensors.back().name = name.substr(6);
    }
    write_safetensors(fs::path(model()) / "model.safetensors", std::move(tensors));
    Json config = test::golden_llama_config();
    config["quantization_config"] = facts_of("model")["config"];
    test::write_text(model() + "/config.json", dump_json(config));
    test::write_text(model() + "/tokenizer.json", test::tiny_tokenizer_json(264));
  }
  std::string model() const { return folder_ / "model"; }
  test::TemporaryFolder folder_;
};

TEST_F(AqlmModel, LogitsAreThoseOfTransformersWithTheSameWeights) {
  const MemorySource& golden = golden_source();
  const StoredTensor tokens = golden.tensor("tokens");
  std::vector<int32_t> ids(tokens.bytes.size / 4);
  std::memcpy(ids.data(), tokens.bytes.data, tokens.bytes.size);
  const std::vector<float> expected = test::floats(golden.tensor("logits"));
  const auto checkpoint = open_checkpoint(model());
  EXPECT_EQ(checkpoint->format(), "aqlm");
  for (const std::string name : {"ref", "cpu"}) {
    const auto backend = make_backend(name, {2, Activations::kDefault});
    Model loaded(*checkpoint, *backend, {.context = 64, .progress = false});
    const std::vector<float> logits =
        test::run_chunks(loaded, ids, {static_cast<int64_t>(ids.size())}, DType::kF32);
    EXPECT_LT(test::relative_error(logits, expected), 1e-5) << name;
  }
}

TEST_F(AqlmModel, VerifyReadsItTwice) {
  const VerifyReport report = verify_checkpoint(model(), "", 1);
  EXPECT_TRUE(report.problems.empty()) << report.problems.front();
  EXPECT_EQ(report.format, "aqlm");
  EXPECT_NE(report.loads_in.find("aqlm"), std::string::npos);
  int64_t read_twice = 0;
  for (const auto& layer : report.layers) read_twice += layer.read_twice;
  EXPECT_EQ(read_twice, 14);
}

TEST_F(AqlmModel, IsASourceForOtherFormatsButNoTarget) {
  QuantizeOptions options;
  options.bits = 8;
  options.group_size = -1;
  options.format = "compressed-tensors";
  options.threads = 1;
  quantize_checkpoint(model(), folder_ / "out", options);
  const auto made = open_checkpoint(folder_ / "out");
  const auto original = open_checkpoint(model());
  const std::string name = "model.layers.1.mlp.up_proj";
  EXPECT_LT(test::relative_error(dequantize(made->load_linear(name, 48, 32).weight),
                                 dequantize(original->load_linear(name, 48, 32).weight)),
            0.02);
  options.format = "aqlm";
  options.force = true;
  try {
    quantize_checkpoint(model(), folder_ / "out", options);
    FAIL() << "wrote aqlm";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("does not write"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace lowbit

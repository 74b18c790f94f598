// `--method auto` from end to end: what it writes, that a plan gives the same bytes again, and that
// a killed run keeps its choice.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "lowbit/base/check.h"
#include "lowbit/quantize/fault.h"
#include "lowbit/quantize/mix_plan.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/verify/verify.h"
#include "support/quantize_runs.h"
#include "support/random.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

class Auto : public testing::Test {
 protected:
  void SetUp() override {
    Json config = test::tinier_folder_config();
    config["tie_word_embeddings"] = true;
    test::write_tiny_folder(model(), config);
    std::string text;
    test::Random random(7);
    for (int i = 0; i < 2000; ++i) text += static_cast<char>('a' + random.below(26));
    test::write_text(folder_ / "text.txt", text);
    options_.method = "auto";
    options_.group_size = 32;
    options_.threads = 1;
    options_.commit_seconds = 0;
    options_.calibration = {.path = folder_ / "text.txt", .samples = 4, .seqlen = 16};
    options_.method_options.automatic.method = "gptq";
    options_.method_options.automatic.schemes = {"w2_g32",      "w3_g32", "w4_g32",
                                                 "w4_g32_zero", "w5_g32", "w8_g32"};
  }
  void TearDown() override { fault_hook = nullptr; }

  std::string model() const { return folder_ / "model"; }
  std::string out() const { return folder_ / "out"; }
  std::map<std::string, std::string> made(const QuantizeOptions& options) const {
    fs::remove_all(out());
    quantize_checkpoint(model(), out(), options);
    return test::snapshot(out());
  }
  MixPlan plan() const {
    const std::string path = out() + "/" + kMixPlanFile;
    return mix_plan_from_json(read_json(path), path);
  }
  std::string error_of(const QuantizeOptions& options) const {
    return test::quantize_error(model(), out(), options);
  }

  test::TemporaryFolder folder_;
  QuantizeOptions options_;
};

TEST_F(Auto, MixesSchemesAtTheSizeOfUniformLayers) {
  const QuantizeSummary summary = quantize_checkpoint(model(), out(), options_);
  const MixPlan mix = plan();
  EXPECT_LE(mix.totals().bits(), 4.5);
  EXPECT_GT(mix.totals().bits(), 4.2);
  // The file adds each module's shape.
  EXPECT_NEAR(summary.bits_per_weight, mix.totals().bits() + 14 * 128.0 / mix.totals().weights,
              1e-9);
  EXPECT_NE(mix.summary().find(", "), std::string::npos) << "one scheme everywhere";
  EXPECT_LT(mix.totals().loss, mix.uniform(int_scheme(4, 32))->loss);
  for (const MixUnit& unit : mix.units) EXPECT_FALSE(unit.why.empty());
}

TEST_F(Auto, ReadsBackWhatItWrote) {
  for (const char* method : {"rtn", "gptq", "autoround"}) {
    options_.method_options.automatic.method = method;
    options_.method_options.autoround.iterations = 2;
    options_.force = true;
    quantize_checkpoint(model(), out(), options_);
    const auto checkpoint = open_checkpoint(out());
    const MixPlan mix = plan();
    std::set<std::string> schemes;
    for (const TensorInfo& info : checkpoint->tensors()) {
      const std::string module = info.name.substr(0, info.name.rfind('.'));
      for (const MixUnit& unit : mix.units) {
        if (std::find(unit.modules.begin(), unit.modules.end(), module) == unit.modules.end()) {
          continue;
        }
        const QTensor weight =
            checkpoint->load_linear(module, info.shape.at(0), info.shape.at(1)).weight;
        EXPECT_EQ(name_of(weight.scheme), name_of(unit.choice().scheme)) << module;
        schemes.insert(name_of(weight.scheme));
      }
    }
    EXPECT_GE(schemes.size(), 2u);
    const VerifyReport report = verify_checkpoint(out(), model(), 1);
    EXPECT_TRUE(report.problems.empty()) << report.problems.front();
    for (const VerifyReport::Layer& layer : report.layers) {
      EXPECT_TRUE(layer.read_twice || layer.scheme == "f16") << layer.module;
    }
  }
}

TEST_F(Auto, GivesABlockThatHardlyMattersFewBits) {
  // Block 1 adds almost nothing to what flows through the model.
  std::vector<StoredTensor> tensors;
  const SafetensorsFile file(model() + "/model.safetensors");
  for (const auto& [name, where] : file.header().tensors) {
    const StoredTensor tensor = file.tensor(name);
    std::vector<uint8_t> bytes(tensor.bytes.data, tensor.bytes.data + tensor.bytes.size);
    const bool adds = name == "model.layers.1.self_attn.o_proj.weight" ||
                      name == "model.layers.1.mlp.down_proj.weight";
    for (size_t i = 0; adds && i < bytes.size(); i += 2) {
      uint16_t half;
      std::memcpy(&half, &bytes[i], 2);
      half = f32_to_f16(f16_to_f32(half) * 0.01f);
      std::memcpy(&bytes[i], &half, 2);
    }
    tensors.push_back({tensor.name, tensor.dtype, tensor.shape, Bytes::own(std::move(bytes))});
  }
  write_safetensors(model() + "/new.safetensors", std::move(tensors));
  fs::rename(model() + "/new.safetensors", model() + "/model.safetensors");
  quantize_checkpoint(model(), out(), options_);
  for (const MixUnit& unit : plan().units) {
    const int bits = unit.choice().scheme.bits;
    if (unit.name.starts_with("layers.1")) {
      EXPECT_LE(bits, 3) << unit.name;
    } else {
      EXPECT_GE(bits, 5) << unit.name;
    }
  }
}

TEST_F(Auto, BytesDoNotDependOnThreads) {
  const auto expected = made(options_);
  options_.threads = 3;
  EXPECT_EQ(made(options_), expected);
}

TEST_F(Auto, APlanGivesTheSameBytesWithoutMeasuring) {
  options_.method_options.automatic.seconds_of = [](int64_t rows, int64_t cols,
                                                    const QuantScheme& scheme) {
    return 1e-12 * static_cast<double>(rows * cols * scheme.bits);
  };
  const auto expected = made(options_);
  options_.method_options.automatic.plan = std::make_shared<const MixPlan>(plan());
  options_.method_options.automatic.seconds_of = nullptr;
  EXPECT_EQ(made(options_), expected);
  // Rounding by itself needs no text then.
  options_.method_options.automatic.method = "rtn";
  options_.calibration.path.clear();
  EXPECT_EQ(made(options_).at(kMixPlanFile), expected.at(kMixPlanFile));
}

TEST_F(Auto, GivesTheSameBytesWhereverItWasKilled) {
  const auto expected = made(options_);
  test::expect_same_bytes_when_killed(model(), out(), options_, 9, expected);
}

// What was measured is not measured again: it might come out otherwise.
TEST_F(Auto, KeepsItsChoiceWhenItGoesOn) {
  AutoOptions& automatic = options_.method_options.automatic;
  automatic.seconds_of = [](int64_t, int64_t, const QuantScheme& scheme) {
    return scheme.bits == 5 ? 1e-3 : 1e-6;
  };
  const auto expected = made(options_);
  fs::remove_all(out());
  const int points = test::count_points(model(), out(), options_);
  fs::remove_all(out());
  EXPECT_FALSE(test::run_killed(points / 2, model(), out(), options_));
  automatic.seconds_of = [](int64_t, int64_t, const QuantScheme&) -> double {
    ADD_FAILURE() << "measured again";
    return 1;
  };
  quantize_checkpoint(model(), out(), options_);
  EXPECT_EQ(test::snapshot(out()), expected);
}

TEST_F(Auto, TellsItsChoiceBeforeItRounds) {
  int told = 0;
  options_.method_options.automatic.chosen = [&](const MixPlan& mix) {
    ++told;
    EXPECT_EQ(mix.units.size(), 8u);
    EXPECT_FALSE(fs::exists(out()));
  };
  quantize_checkpoint(model(), out(), options_);
  EXPECT_EQ(told, 1);
}

TEST_F(Auto, SaysWhatIsImpossible) {
  const auto expect = [&](const QuantizeOptions& options, const std::string& text) {
    const std::string error = error_of(options);
    EXPECT_NE(error.find(text), std::string::npos) << error;
    EXPECT_FALSE(fs::exists(out() + ".partial"));
  };
  QuantizeOptions other = options_;
  other.format = "gptq";
  expect(other, "writes compressed-tensors");
  other = options_;
  other.method_options.automatic.method = "hqq";
  expect(other, "these do: rtn, rtn-search, gptq, awq, autoround, best");
  other = options_;
  other.method_options.automatic.target_bits = 2;
  expect(other, "the smallest is 2.5, the largest 8.5");
  other = options_;
  other.method_options.automatic.target_bytes = 1000;
  expect(other, "stay in 16 bits");
  other = options_;
  other.method_options.automatic.schemes = {"w4"};
  expect(other, "there is no \"w4\"");
  other = options_;
  other.method_options.automatic.schemes = {"w4_g128"};
  expect(other, "no scheme's groups divide its 64 columns");
  other = options_;
  other.method_options.automatic.target_bits = 4;
  other.method_options.automatic.max_ppl_increase = 0.01;
  expect(other, "give one");
  other = options_;
  other.calibration.path.clear();
  expect(other, "needs text");
  other = options_;
  other.input_bits = 8;
  expect(other, "does not round inputs");
}

// As one may write by hand: modules and schemes.
TEST_F(Auto, TakesAPlanWithoutMeasurements) {
  const auto expected = made(options_);
  const MixPlan mix = plan();
  Json least = {{"layers", Json::array()}};
  for (const MixUnit& unit : mix.units) {
    least["layers"].push_back(
        {{"modules", unit.modules}, {"scheme", name_of(unit.choice().scheme)}});
  }
  options_.method_options.automatic.plan =
      std::make_shared<const MixPlan>(mix_plan_from_json(least, "plan"));
  EXPECT_EQ(made(options_).at("model.safetensors"), expected.at("model.safetensors"));
  EXPECT_EQ(plan().totals().bytes, mix.totals().bytes);
}

TEST_F(Auto, RefusesThePlanOfAnotherModel) {
  quantize_checkpoint(model(), out(), options_);
  MixPlan mix = plan();
  options_.force = true;
  const auto error_with = [&](const MixPlan& changed) {
    options_.method_options.automatic.plan = std::make_shared<const MixPlan>(changed);
    return error_of(options_);
  };
  MixPlan fewer = mix;
  fewer.units.pop_back();
  EXPECT_NE(error_with(fewer).find("no scheme for model.layers.1.mlp.down_proj"),
            std::string::npos);
  MixPlan more = mix;
  more.units[0].modules.push_back("model.layers.7.mlp.down_proj");
  EXPECT_NE(error_with(more).find("model.layers.7.mlp.down_proj"), std::string::npos);
  MixPlan twice = mix;
  twice.units.push_back(twice.units[0]);
  EXPECT_NE(error_with(twice).find("twice"), std::string::npos);
  MixPlan wide = mix;
  wide.units[0].options[wide.units[0].chosen].scheme.group_size = 128;
  EXPECT_NE(error_with(wide).find("64 columns"), std::string::npos);
}

}  // namespace
}  // namespace lowbit

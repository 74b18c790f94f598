// Inputs rounded as compressed-tensors rounds them (tools/golden/rounded_inputs.py), from its
// configs to the backends.
#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/compressed_floats.h"
#include "lowbit/tensor/input_rounding.h"
#include "support/backends.h"
#include "support/linears.h"

namespace lowbit {
namespace {

using test::MemorySource;

struct Case {
  const char* name;
  InputForm form;
  int bits;
  Code weight;
};

constexpr Case kCases[] = {
    {"token_zero", InputForm::kTokenZero, 8, Code::kInt},
    {"token_zero4", InputForm::kTokenZero, 4, Code::kInt},
    {"static", InputForm::kStatic, 8, Code::kInt},
    {"static_zero", InputForm::kStaticZero, 8, Code::kInt},
    {"float_token", InputForm::kToken, 8, Code::kE4M3},
    {"float_group", InputForm::kGroup, 8, Code::kE4M3},
    {"float_static", InputForm::kStatic, 8, Code::kE4M3},
};

class InputSchemes : public testing::TestWithParam<Case> {
 protected:
  InputSchemes() : golden_(SafetensorsFile(test::golden("formats/rounded_inputs.safetensors"))) {
    const SafetensorsFile file(test::golden("formats/rounded_inputs.safetensors"));
    arguments_ = parse_json(file.header().metadata.at(GetParam().name), GetParam().name);
    x_ = test::floats(golden_.tensor("x"));
    expected_ = test::floats(golden_.tensor(GetParam().name + std::string(".expected")));
  }

  // A module "m" of an 8-bit weight whose config has the golden input_activations.
  MemorySource module() const {
    const bool integers = GetParam().weight == Code::kInt;
    const QuantScheme scheme = integers ? int_scheme(8, kCols) : fp8_scheme(1, kCols);
    MemorySource source(kCompressedFormat.write("m", test::random_weight(scheme, 8, kCols, 3)));
    for (const char* part : {".input_scale", ".input_zero_point"}) {
      const std::string name = GetParam().name + std::string(part);
      if (!golden_.contains(name)) continue;
      StoredTensor tensor = golden_.tensor(name);
      tensor.name = concat("m", part);
      source.put(tensor);
    }
    return source;
  }
  Json config() const {
    const bool integers = GetParam().weight == Code::kInt;
    Json config =
        kCompressedFormat.quantization_config(integers ? int_scheme(8, 0) : fp8_scheme(1, 0), {});
    config["config_groups"]["group_0"]["input_activations"] = arguments_;
    return config;
  }

  static constexpr int64_t kCols = 256;
  MemorySource golden_;
  Json arguments_;
  std::vector<float> x_, expected_;
};

TEST_P(InputSchemes, ValuesAreTheReferences) {
  const QTensor weight = kCompressedFormat.read(module(), config(), "m");
  EXPECT_EQ(weight.scheme.input_bits, GetParam().bits);
  EXPECT_EQ(weight.scheme.input_form, GetParam().form);
  EXPECT_EQ(kCompressedFormat.describe(module(), config(), "m").scheme, weight.scheme);
  const InputRounding rounding = input_rounding(weight);
  std::vector<float> out(kCols);
  for (size_t t = 0; t < x_.size() / kCols; ++t) {
    round_input_values(rounding, x_.data() + t * kCols, kCols, out.data());
    int others = 0;
    for (size_t k = 0; k < kCols; ++k) {
      const float expected = expected_[t * kCols + k];
      others += std::fabs(out[k] - expected) > 1e-6f * (1 + std::fabs(expected));
    }
    // A token's floats are x times the inverse of the scale here: a few lie on another side.
    const bool floats = GetParam().form == InputForm::kToken && GetParam().weight == Code::kE4M3;
    EXPECT_LE(others, floats ? 4 : 0) << GetParam().name << " token " << t;
  }
}

TEST_P(InputSchemes, BackendsMultiplyTheRoundedValues) {
  const QTensor weight = kCompressedFormat.read(module(), config(), "m");
  const std::vector<float> dense = dequantize(weight);
  const auto tokens = static_cast<int64_t>(x_.size()) / kCols;
  for (const std::string name : {"ref", "cpu"}) {
    const auto backend = make_backend(name, {2, Activations::kDefault});
    const auto linear = backend->make_linear({{"m", weight, {}}});
    EXPECT_NE(backend->description().find("where the checkpoint says so"), std::string::npos);
    Tensor y = backend->allocate(tokens, 8);
    linear->forward(test::tensor_of(*backend, x_, tokens), y);
    const std::vector<float> found = test::values_of(*backend, y);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t n = 0; n < 8; ++n) {
        double sum = 0, size = 1e-6;
        for (int64_t k = 0; k < kCols; ++k) {
          const double product = double{expected_[t * kCols + k]} * dense[n * kCols + k];
          sum += product;
          size += std::fabs(product);
        }
        EXPECT_NEAR(found[t * 8 + n], sum, 1e-4 * size) << name;
      }
    }
  }
}

TEST_P(InputSchemes, SurviveARoundTrip) {
  const QTensor weight = kCompressedFormat.read(module(), config(), "m");
  const MemorySource source(kCompressedFormat.write("m", weight));
  QuantScheme request = weight.scheme;
  request.group_size = 0;
  const Json config = kCompressedFormat.quantization_config(request, {});
  const QTensor found = kCompressedFormat.read(source, config, "m");
  EXPECT_EQ(found.scheme, weight.scheme);
  EXPECT_EQ(found.input_scale, weight.input_scale);
  EXPECT_EQ(found.input_zero, weight.input_zero);
  EXPECT_EQ(dequantize(found), dequantize(weight));
  const Json& written = config["config_groups"]["group_0"]["input_activations"];
  for (const char* key : {"num_bits", "type", "symmetric", "strategy", "dynamic", "group_size"}) {
    EXPECT_EQ(written.at(key), arguments_.at(key)) << key;
  }
  test::expect_no_crash(kCompressedFormat, source, config, "m");
}

INSTANTIATE_TEST_SUITE_P(All, InputSchemes, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(InputRounding, ATokenThatIsNotFiniteIsNaNAndZerosStay) {
  for (int form = 0; form <= static_cast<int>(InputForm::kGroup); ++form) {
    const InputRounding rounding{8, static_cast<InputForm>(form), form == 4, 0.5f, 0};
    std::vector<float> x(130, 0.f), out(130, 1.f);
    round_input_values(rounding, x.data(), 130, out.data());
    EXPECT_EQ(out, x) << form;
    for (const float fault : {INFINITY, -INFINITY, std::nanf("")}) {
      x[7] = fault;
      round_input_values(rounding, x.data(), 130, out.data());
      for (const float value : out) EXPECT_TRUE(std::isnan(value)) << form;
    }
  }
}

TEST(InputRounding, StaticScalesThatCannotBeAreRefused) {
  QTensor weight = test::random_weight(int_scheme(8, 64), 4, 64, 1);
  weight.scheme.input_bits = 8;
  weight.scheme.input_form = InputForm::kStatic;
  for (const float scale : {0.f, -1.f, INFINITY, std::nanf("")}) {
    weight.input_scale = scale;
    EXPECT_THROW(validate(weight, "m"), Error) << scale;
  }
  weight.input_scale = 1;
  weight.input_zero = 3;
  EXPECT_THROW(validate(weight, "m"), Error);
  weight.scheme.input_form = InputForm::kStaticZero;
  EXPECT_NO_THROW(validate(weight, "m"));
  weight.input_zero = 128;
  EXPECT_THROW(validate(weight, "m"), Error);
}

TEST(InputSchemesOfWeights, AsymmetricWeightsOfEightBitsAreIntQuantized) {
  QTensor weight = test::random_weight(int_scheme(8, 64, Zero::kInt), 4, 64, 1);
  weight.scheme.input_bits = 8;
  const auto tensors = kCompressedFormat.write("m", weight);
  const MemorySource source(tensors);
  EXPECT_TRUE(source.contains("m.weight"));
  EXPECT_EQ(source.tensor("m.weight_zero_point").dtype, "I8");
  test::expect_same(test::round_trip(kCompressedFormat, weight), weight);
}

}  // namespace
}  // namespace lowbit

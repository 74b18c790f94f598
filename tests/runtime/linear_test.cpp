#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <optional>

#include "lowbit/base/check.h"
#include "lowbit/runtime/backend.h"
#include "lowbit/runtime/cpu/isa.h"
#include "lowbit/runtime/cpu/pack_groups.h"
#include "lowbit/tensor/dtype.h"
#include "support/backends.h"
#include "support/environment.h"
#include "support/random.h"
#include "support/weights.h"

namespace lowbit {
namespace {

using test::gaussian;
using test::multiply;
using test::random_order;
using test::random_weight;
using test::relative_error;
using test::ScopedVariable;

struct Shape {
  int64_t rows, cols;
};
constexpr Shape kShapes[] = {{1, 1},   {3, 5},     {8, 32},   {7, 40},   {16, 64},
                             {17, 96}, {31, 100},  {65, 257}, {96, 576}, {200, 320},
                             {33, 31}, {130, 544}, {48, 1536}};
constexpr int64_t kTokens[] = {1, 2, 4, 6, 7, 13, 97};

std::vector<QuantScheme> all_schemes() {
  std::vector<QuantScheme> schemes = {dense_scheme(Code::kF32), dense_scheme(Code::kF16),
                                      dense_scheme(Code::kBF16)};
  constexpr int64_t kRow = 1 << 20;
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t group : {int64_t{16}, int64_t{32}, int64_t{64}, int64_t{128}, kRow}) {
      for (const Zero zero : {Zero::kNone, Zero::kInt, Zero::kOffset}) {
        schemes.push_back(int_scheme(bits, group, zero));
      }
    }
  }
  for (const Code code : {Code::kNf4, Code::kFp4, Code::kE2M1}) {
    for (const int64_t group : {int64_t{16}, int64_t{32}, int64_t{64}}) {
      schemes.push_back(table_scheme(code, group));
    }
  }
  schemes.push_back(table_scheme(Code::kE2M1, 32, ScaleForm::kE8M0));
  schemes.push_back(fp8_scheme(1, 32, ScaleForm::kE8M0));
  schemes.push_back(fp8_scheme(1, kRow));
  schemes.push_back(fp8_scheme(8, 128));
  schemes.push_back({Code::kIq4Nl, 4, 1, 32, Zero::kNone});
  schemes.push_back({Code::kIq4Nl, 4, 1, 16, Zero::kNone});
  schemes.push_back(fp8_scheme(1, 32));
  schemes.push_back(fp8_scheme(16, 128));
  schemes.push_back(int_scheme(4, 24));                    // a group that no low-bit kernel has
  schemes.push_back({Code::kInt, 8, 4, 32, Zero::kNone});  // rows that share scales
  return schemes;
}

LinearWeight make_weight(const QuantScheme& scheme, const Shape& shape, uint64_t seed) {
  LinearWeight linear;
  linear.name = name_of(scheme);
  linear.weight = random_weight(scheme, shape.rows, shape.cols, seed, seed % 2 == 0);
  if (seed % 3 == 0) linear.weight.input_order = random_order(shape.cols, seed);
  if (seed % 5 < 2) linear.bias = gaussian(shape.rows, seed);
  return linear;
}

struct Candidate {
  std::string name;
  std::unique_ptr<Backend> backend;
  double bound;
};

// Every way of the cpu and the cuda backend with its bound on the relative error.
std::vector<Candidate> candidates() {
  std::vector<Candidate> all;
  for (const std::string& isa : cpu::available_isas()) {
    const ScopedVariable forced("LOWBIT_CPU_ISA", isa);
    all.push_back({isa + " f32", make_backend("cpu", {1, Activations::kF32}), 1e-5});
    all.push_back({isa + " int8", make_backend("cpu", {2, Activations::kInt8}), 1.5e-2});
  }
  if (test::backend_problem("cuda").empty()) {
    all.push_back({"cuda f32", make_backend("cuda", {1, Activations::kF32}), 1e-5});
    all.push_back({"cuda 16-bit", make_backend("cuda", {1, Activations::kDefault}), 4e-3});
  }
  return all;
}

class LinearMatrix : public ::testing::TestWithParam<QuantScheme> {};

TEST_P(LinearMatrix, AgreesWithTheReference) {
  const std::vector<Candidate> all = candidates();
  const std::unique_ptr<Backend> ref = make_backend("ref", {1, Activations::kF32});
  uint64_t seed = 0;
  for (const Shape& shape : kShapes) {
    ++seed;
    const auto expected_linear = ref->make_linear({make_weight(GetParam(), shape, seed)});
    const std::vector<float> x = gaussian(97 * shape.cols, seed + 100);
    const std::vector<float> expected = multiply(*ref, *expected_linear, x, 97);
    for (const Candidate& candidate : all) {
      const auto linear = candidate.backend->make_linear({make_weight(GetParam(), shape, seed)});
      // Too few products to average the rounding of activations out.
      const double slack = shape.rows * shape.cols < 1000 ? 3 : 1;
      EXPECT_LT(relative_error(multiply(*candidate.backend, *linear, x, 97), expected),
                candidate.bound * slack)
          << candidate.name << " " << linear->kernel() << " " << shape.rows << " x " << shape.cols;
    }
  }
}

class LinearBits : public ::testing::TestWithParam<std::tuple<std::string, QuantScheme>> {};

TEST_P(LinearBits, OfATokenAreTheSameInAnyBatchOnAnyThreads) {
  const auto& [name, scheme] = GetParam();
  LOWBIT_SKIP_WITHOUT_BACKEND(name);
  const Activations low_precision = name == "cpu" ? Activations::kInt8 : Activations::kDefault;
  uint64_t seed = 20;
  for (const Shape& shape : kShapes) {
    ++seed;
    const std::vector<float> x = gaussian(97 * shape.cols, seed);
    for (const Activations activations : {Activations::kF32, low_precision}) {
      std::vector<float> whole;
      for (const int threads : {1, 2}) {
        const auto backend = make_backend(name, {threads, activations});
        const auto linear = backend->make_linear({make_weight(scheme, shape, seed)});
        if (whole.empty()) whole = multiply(*backend, *linear, x, 97);
        for (const int64_t tokens : kTokens) {
          const std::vector<float> y = multiply(*backend, *linear, x, tokens);
          ASSERT_TRUE(std::equal(y.begin(), y.end(), whole.begin()))
              << linear->kernel() << " " << shape.rows << " x " << shape.cols << ", " << tokens
              << " tokens, " << threads << " threads";
        }
      }
    }
  }
}

class CudaLinearBits : public ::testing::TestWithParam<QuantScheme> {};

TEST_P(CudaLinearBits, OfATokenAreTheSameByEveryKernel) {
  LOWBIT_SKIP_WITHOUT_BACKEND("cuda");
  uint64_t seed = 60;
  for (const Shape& shape : {Shape{65, 257}, Shape{333, 2112}}) {
    ++seed;
    const std::vector<float> x = gaussian(1000 * shape.cols, seed);
    for (const Activations activations : {Activations::kF32, Activations::kDefault}) {
      std::vector<float> whole;
      for (const char* kernel : {"", "tile", "wgmma"}) {
        const ScopedVariable forced("LOWBIT_CUDA_LINEAR", kernel);
        const auto backend = make_backend("cuda", {1, activations});
        const auto linear = backend->make_linear({make_weight(GetParam(), shape, seed)});
        if (whole.empty()) whole = multiply(*backend, *linear, x, 1000);
        for (const int64_t tokens : {1, 8, 9, 16, 17, 33, 65, 129, 255, 257, 1000}) {
          const std::vector<float> y = multiply(*backend, *linear, x, tokens);
          ASSERT_TRUE(std::equal(y.begin(), y.end(), whole.begin()))
              << linear->kernel() << " " << kernel << " " << shape.rows << " x " << shape.cols
              << ", " << tokens << " tokens";
        }
      }
    }
  }
}

TEST_P(LinearBits, OfAnEmbeddingAreThoseOfDequantize) {
  const auto& [name, scheme] = GetParam();
  LOWBIT_SKIP_WITHOUT_BACKEND(name);
  const auto backend = make_backend(name, {0, Activations::kF32});
  uint64_t seed = 40;
  for (const Shape& shape : kShapes) {
    const LinearWeight weight = make_weight(scheme, shape, ++seed);
    const std::vector<float> dense = dequantize(weight.weight);
    const auto linear = backend->make_linear({weight});
    std::vector<int32_t> ids;
    for (int64_t row = shape.rows - 1; row >= 0; --row) ids.push_back(static_cast<int32_t>(row));
    Tensor out = backend->allocate(shape.rows, shape.cols);
    linear->embed(ids, out);
    const std::vector<float> rows = test::values_of(*backend, out);
    for (const int32_t id : ids) {
      const float* row = rows.data() + (shape.rows - 1 - id) * shape.cols;
      ASSERT_TRUE(std::equal(row, row + shape.cols, dense.begin() + id * shape.cols))
          << linear->kernel() << " row " << id;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, LinearBits,
                         ::testing::Combine(::testing::Values("cpu", "cuda"),
                                            ::testing::ValuesIn(all_schemes())),
                         [](const auto& info) {
                           const QuantScheme& s = std::get<1>(info.param);
                           return std::get<0>(info.param) + "_" + name_of(s) +
                                  (s.group_rows > 1 ? "_rows" : "");
                         });

INSTANTIATE_TEST_SUITE_P(Schemes, CudaLinearBits, ::testing::ValuesIn(all_schemes()),
                         [](const auto& info) {
                           const QuantScheme& s = info.param;
                           return name_of(s) + (s.group_rows > 1 ? "_rows" : "");
                         });

INSTANTIATE_TEST_SUITE_P(Schemes, LinearMatrix, ::testing::ValuesIn(all_schemes()),
                         [](const auto& info) {
                           const QuantScheme& s = info.param;
                           return name_of(s) + (s.group_rows > 1 ? "_rows" : "");
                         });

TEST(Linear, PartsOfSeveralSchemesMakeOneLayer) {
  const auto parts = [] {
    std::vector<LinearWeight> parts;
    parts.push_back(make_weight(int_scheme(4, 32, Zero::kOffset), {20, 96}, 1));
    parts.push_back(make_weight(int_scheme(4, 32, Zero::kOffset), {13, 96}, 2));
    parts.push_back(make_weight(int_scheme(6, 16), {9, 96}, 6));
    parts.push_back(make_weight(dense_scheme(Code::kBF16), {5, 96}, 4));
    return parts;
  };
  const auto ref = make_backend("ref");
  const auto expected_linear = ref->make_linear(parts());
  const std::vector<float> x = gaussian(5 * 96, 9);
  const std::vector<float> expected = multiply(*ref, *expected_linear, x, 5);
  for (const Candidate& candidate : candidates()) {
    const auto linear = candidate.backend->make_linear(parts());
    EXPECT_EQ(linear->rows(), 47);
    EXPECT_LT(relative_error(multiply(*candidate.backend, *linear, x, 5), expected),
              candidate.bound)
        << linear->kernel();
    const int32_t ids[] = {0, 19, 20, 32, 33, 41, 42, 46};
    Tensor out = candidate.backend->allocate(8, 96), expected_out = ref->allocate(8, 96);
    linear->embed(ids, out);
    expected_linear->embed(ids, expected_out);
    const double bound = candidate.name == "cuda 16-bit" ? 1e-3 : 0;
    EXPECT_LE(relative_error(test::values_of(*candidate.backend, out),
                             test::values_of(*ref, expected_out)),
              bound)
        << linear->kernel();
  }
}

TEST(Linear, KeepsFourBitWeightsCompact) {
  const auto backend = make_backend("cpu");
  const auto bits = [&](const QuantScheme& scheme) {
    const auto linear = backend->make_linear({{"w", random_weight(scheme, 64, 576, 1), {}}});
    return double(linear->bytes()) * 8 / (64 * 576);
  };
  EXPECT_EQ(bits(int_scheme(4, 32, Zero::kOffset)), 5.0);  // Q4_1
  EXPECT_EQ(bits(int_scheme(4, 32)), 4.5);                 // Q4_0
  EXPECT_EQ(bits(int_scheme(8, 32)), 8.5);                 // Q8_0
  EXPECT_EQ(bits(int_scheme(2, 64)), 2.25);
  EXPECT_EQ(bits(int_scheme(3, 64)), 3.25);
  EXPECT_EQ(bits(int_scheme(5, 32)), 5.5);
  EXPECT_EQ(bits(int_scheme(6, 64)), 6.25);
  EXPECT_EQ(bits(table_scheme(Code::kNf4, 64)), 4.25);
  EXPECT_EQ(bits(fp8_scheme(1, 64)), 8.25);
  EXPECT_EQ(bits(dense_scheme(Code::kF16)), 16.0);
}

// As K-quants store them: integers times a half for every 256 columns.
QTensor k_quant(int bits, int64_t group, Zero zero, int most) {
  QTensor weight = random_weight(int_scheme(bits, group, zero), 24, 512, 5);
  test::Random random(11);
  const auto supers = static_cast<size_t>(256 / group);
  float scale = 0, offset = 0;
  for (size_t i = 0; i < weight.scales.size(); ++i) {
    if (i % supers == 0) {
      scale = f16_to_f32(f32_to_f16(0.001f + 0.001f * float(random.uniform())));
      offset = f16_to_f32(f32_to_f16(0.001f * float(random.uniform())));
    }
    const auto multiple = static_cast<float>(random.below(most));
    weight.scales[i] = scale * (zero == Zero::kNone ? multiple - float(most / 2) : multiple);
    if (zero == Zero::kOffset) weight.offsets[i] = -(offset * float(random.below(most)));
  }
  return weight;
}

TEST(Linear, KeepsTheScalesOfKQuantsInEightBits) {
  const auto ref = make_backend("ref");
  for (const QTensor& weight :
       {k_quant(4, 32, Zero::kOffset, 64), k_quant(5, 32, Zero::kOffset, 64),
        k_quant(6, 16, Zero::kNone, 256), k_quant(2, 16, Zero::kOffset, 16)}) {
    const std::vector<float> x = gaussian(5 * 512, 9);
    const auto expected = multiply(*ref, *ref->make_linear({{"w", weight, {}}}), x, 5);
    for (const Candidate& candidate : candidates()) {
      const auto linear = candidate.backend->make_linear({{"w", weight, {}}});
      const int arrays = weight.scheme.zero == Zero::kOffset ? 2 : 1;
      const double group_bits = arrays * (8.0 / double(weight.scheme.group_size) + 32.0 / 256);
      if (test::on_host(*candidate.backend)) {  // backend cuda keeps them as halves or floats
        EXPECT_EQ(double(linear->bytes()) * 8 / (24 * 512), weight.scheme.bits + group_bits);
      }
      EXPECT_LT(relative_error(multiply(*candidate.backend, *linear, x, 5), expected),
                candidate.bound)
          << linear->kernel();
    }
    Tensor out = make_backend("cpu")->allocate(24, 512);
    std::vector<int32_t> ids(24);
    std::iota(ids.begin(), ids.end(), 0);
    make_backend("cpu")->make_linear({{"w", weight, {}}})->embed(ids, out);
    const std::vector<float> dense = dequantize(weight);
    EXPECT_TRUE(std::equal(dense.begin(), dense.end(), out.row(0)));
  }
}

TEST(Linear, FindsWhatScalesAreMultiplesOf) {
  float factor;
  int8_t multiples[4];
  const auto found = [&](std::vector<float> values) {
    return cpu::find_common_factor(values, factor, multiples);
  };
  ASSERT_TRUE(found({0, 0, 0, 0}));
  EXPECT_EQ(factor, 0);
  ASSERT_TRUE(found({0.375f * 128, 0.375f * -127, 0.375f, 0}));  // +128 is no int8
  EXPECT_EQ(factor, -0.375f);
  EXPECT_EQ(multiples[0], -128);
  EXPECT_EQ(multiples[1], 127);
  EXPECT_FALSE(found({0.375f * 128, 0.375f * -128, 0.375f, 0}));
  EXPECT_FALSE(found({1.f, 0x1p-20f, 0, 0}));
  EXPECT_FALSE(found({1.f, 1e-38f, 1e38f, 0}));
}

TEST(Linear, AForcedLayoutIsTheOneThatRuns) {
  const auto ref = make_backend("ref");
  const std::vector<float> x = gaussian(3 * 96, 9);
  const auto weight = [] { return make_weight(int_scheme(4, 32), {24, 96}, 7); };
  const auto expected = multiply(*ref, *ref->make_linear({weight()}), x, 3);
  for (const std::string layout : {"q4", "q8", "f32"}) {
    const ScopedVariable forced("LOWBIT_LINEAR", layout);
    for (const Candidate& candidate : candidates()) {
      const auto linear = candidate.backend->make_linear({weight()});
      EXPECT_EQ(linear->kernel().rfind(layout + "_", 0), 0u) << linear->kernel();
      EXPECT_LT(relative_error(multiply(*candidate.backend, *linear, x, 3), expected),
                candidate.bound);
    }
  }
  const ScopedVariable impossible("LOWBIT_LINEAR", "bf16");
  EXPECT_THROW(make_backend("cpu")->make_linear({weight()}), Error);
  const ScopedVariable unknown("LOWBIT_LINEAR", "q3");
  EXPECT_THROW(make_backend("cpu")->make_linear({weight()}), Error);
}

TEST(Linear, AWeightThatIsExactInHalvesStaysInHalves) {
  QTensor weight = random_weight(int_scheme(4, 24), 8, 48, 3);
  for (float& scale : weight.scales) scale = 0.125f;
  EXPECT_EQ(make_backend("cpu")->make_linear({{"w", weight, {}}})->kernel().substr(0, 4), "f16_");
}

TEST(Linear, RefusesOperandsThatDoNotFit) {
  for (const std::string& name : backend_names()) {
    if (!test::backend_problem(name).empty()) continue;
    const auto backend = make_backend(name);
    const auto weight = [](int64_t rows, int64_t cols) {
      return LinearWeight{"w", random_weight(int_scheme(4, 32), rows, cols, 1), {}};
    };
    EXPECT_THROW(backend->make_linear({}), Error);
    EXPECT_THROW(backend->make_linear({weight(8, 32), weight(8, 64)}), Error);
    LinearWeight short_bias = weight(8, 32);
    short_bias.bias.resize(7);
    EXPECT_THROW(backend->make_linear({short_bias}), Error);
    const auto linear = backend->make_linear({weight(8, 32)});
    Tensor x = backend->allocate(2, 31), y = backend->allocate(2, 8);
    EXPECT_THROW(linear->forward(x, y), Error);
    Tensor rows = backend->allocate(1, 32);
    for (const int32_t id : {-1, 8, INT32_MAX, INT32_MIN}) {
      EXPECT_THROW(linear->embed(std::vector<int32_t>{id}, rows), Error);
    }
  }
}

TEST(CpuIsa, TheForcedOneIsTheOneThatRuns) {
  for (const std::string& isa : cpu::available_isas()) {
    const ScopedVariable forced("LOWBIT_CPU_ISA", isa);
    const auto backend = make_backend("cpu");
    EXPECT_NE(backend->description().find("cpu " + isa), std::string::npos);
    const auto linear =
        backend->make_linear({make_weight(int_scheme(4, 32, Zero::kOffset), {8, 32}, 1)});
    EXPECT_EQ(linear->kernel(), "q4_" + isa + "_int8");
  }
}

TEST(CpuIsa, OneThatIsMissingIsAnErrorThatListsTheOthers) {
  const ScopedVariable forced("LOWBIT_CPU_ISA", "avx1024");
  try {
    make_backend("cpu");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    for (const std::string& isa : cpu::available_isas()) {
      EXPECT_NE(std::string(error.what()).find(isa), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace lowbit

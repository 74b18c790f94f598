// Linears whose scheme rounds their inputs, and outlier columns that are multiplied apart.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "lowbit/runtime/backend.h"
#include "lowbit/runtime/cpu/isa.h"
#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/input_codes.h"
#include "support/backends.h"
#include "support/environment.h"
#include "support/random.h"
#include "support/weights.h"

namespace lowbit {
namespace {

using test::gaussian;
using test::multiply;
using test::relative_error;
using test::ScopedVariable;

struct Case {
  QuantScheme scheme;
  int64_t rows, cols, outliers;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  constexpr int64_t kRow = 1 << 20;
  for (const auto& [bits, inputs] : {std::pair{8, 8}, {4, 8}, {4, 4}, {3, 4}}) {
    for (const int64_t group : {kRow, int64_t{64}, int64_t{16}, int64_t{24}}) {
      for (const Zero zero : {Zero::kNone, Zero::kInt, Zero::kOffset}) {
        QuantScheme scheme = int_scheme(bits, group, zero);
        scheme.input_bits = inputs;
        cases.push_back({scheme, 33, 96, 0});
        cases.push_back({scheme, 70, 257, 13});
        cases.push_back({scheme, 8, 48, 48});
      }
    }
  }
  return cases;
}

// 8-bit floats, whose inputs are 8-bit floats.
std::vector<Case> float_cases() {
  std::vector<Case> cases;
  for (const int64_t group : {int64_t{1} << 20, int64_t{128}, int64_t{32}, int64_t{24}}) {
    QuantScheme scheme = fp8_scheme(1, group);
    scheme.input_bits = 8;
    cases.push_back({scheme, 33, 96, 0});
    cases.push_back({scheme, 70, 257, 13});
  }
  return cases;
}

// What the tensor cores of a GPU multiply as they are, and a little of what they do not.
std::vector<Case> device_cases() {
  std::vector<Case> cases;
  for (const auto& [bits, inputs] : {std::pair{8, 8}, {4, 8}, {4, 4}, {3, 4}, {6, 8}}) {
    for (const int64_t group : {int64_t{1} << 20, int64_t{128}, int64_t{384}, int64_t{64}}) {
      for (const int64_t outliers : {0, 70}) {
        QuantScheme scheme = int_scheme(bits, group);
        scheme.input_bits = inputs;
        cases.push_back({scheme, 333, 2112, outliers});
        if (group > 128) cases.push_back({scheme, 65, 257, outliers});
      }
    }
  }
  for (const int64_t group : {int64_t{1} << 20, int64_t{128}, int64_t{64}}) {
    QuantScheme scheme = fp8_scheme(1, group);
    scheme.input_bits = 8;
    cases.push_back({scheme, 333, 2112, 0});
    cases.push_back({scheme, 300, 1153, 128});
  }
  QuantScheme zeros = int_scheme(4, 128, Zero::kInt);
  zeros.input_bits = 8;
  cases.push_back({zeros, 70, 300, 5});
  return cases;
}

LinearWeight make_weight(const Case& c, uint64_t seed) {
  LinearWeight linear;
  linear.name = name_of(c.scheme);
  linear.weight = test::random_weight(c.scheme, c.rows, c.cols, seed);
  if (seed % 2 == 0) linear.bias = gaussian(c.rows, seed);
  if (c.outliers > 0) {
    auto outliers = std::make_shared<OutlierColumns>();
    outliers->columns = test::random_order(c.cols, 3);
    outliers->columns.resize(static_cast<size_t>(c.outliers));
    outliers->weight = test::random_weight(dense_scheme(Code::kF16), c.rows, c.outliers, seed + 1);
    linear.weight.outliers = outliers;
  } else if (seed % 3 == 0) {
    linear.weight.input_order = test::random_order(c.cols, seed);
  }
  return linear;
}

// Some inputs are ten times larger than the others.
std::vector<float> inputs(int64_t tokens, int64_t cols) {
  std::vector<float> x = gaussian(tokens * cols, 17);
  for (size_t i = 0; i < x.size(); i += 29) x[i] *= 10;
  return x;
}

// The definition once more, in double.
std::vector<float> expected(const LinearWeight& linear, const std::vector<float>& x,
                            int64_t tokens) {
  const QTensor& weight = linear.weight;
  const std::vector<float> dense = dequantize(weight);
  const bool floats = weight.scheme.code == Code::kE4M3;
  const float steps =
      floats ? kE4M3Max : static_cast<float>((1 << (weight.scheme.input_bits - 1)) - 1);
  std::vector<bool> apart(static_cast<size_t>(weight.cols), false);
  if (weight.outliers) {
    for (const int32_t column : weight.outliers->columns) apart[column] = true;
  }
  std::vector<float> y;
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = x.data() + t * weight.cols;
    float largest = 0;
    for (int64_t k = 0; k < weight.cols; ++k) {
      if (!apart[k]) largest = std::max(largest, std::fabs(row[k]));
    }
    for (int64_t n = 0; n < weight.rows; ++n) {
      double sum = linear.bias.empty() ? 0 : linear.bias[n];
      for (int64_t k = 0; k < weight.cols; ++k) {
        double value = row[k];
        if (!apart[k]) {
          const float scaled = row[k] * (steps / largest);
          value = floats ? double(e4m3_to_f32(f32_to_e4m3(scaled))) : std::nearbyint(scaled);
          value *= double(largest) / steps;
        }
        sum += value * dense[n * weight.cols + k];
      }
      y.push_back(static_cast<float>(sum));
    }
  }
  return y;
}

TEST(RoundedInputs, EveryBackendOnTheHostFollowsTheDefinition) {
  uint64_t seed = 0;
  for (const Case& c : all_cases()) {
    const LinearWeight weight = make_weight(c, ++seed);
    const std::vector<float> x = inputs(9, c.cols), truth = expected(weight, x, 9);
    const auto ref = make_backend("ref", {1});
    EXPECT_LT(relative_error(multiply(*ref, *ref->make_linear({weight}), x, 9), truth), 1e-5)
        << weight.name;
    for (const std::string& isa : cpu::available_isas()) {
      const ScopedVariable forced("LOWBIT_CPU_ISA", isa);
      const auto backend = make_backend("cpu", {2});
      const auto linear = backend->make_linear({weight});
      EXPECT_LT(relative_error(multiply(*backend, *linear, x, 9), truth), 1e-5)
          << linear->kernel() << " " << weight.name << " " << c.outliers;
    }
    const ScopedVariable dense("LOWBIT_LINEAR", "f32");
    const auto backend = make_backend("cpu", {1});
    EXPECT_LT(relative_error(multiply(*backend, *backend->make_linear({weight}), x, 9), truth),
              1e-5)
        << weight.name;
  }
}

TEST(RoundedInputs, OfEightBitFloatsAreEightBitFloats) {
  uint64_t seed = 0;
  for (const Case& c : float_cases()) {
    const LinearWeight weight = make_weight(c, ++seed);
    const std::vector<float> x = inputs(9, c.cols), truth = expected(weight, x, 9);
    for (const char* name : {"ref", "cpu"}) {
      const auto backend = make_backend(name, {2});
      const auto linear = backend->make_linear({weight});
      EXPECT_LT(relative_error(multiply(*backend, *linear, x, 9), truth), 1e-5)
          << linear->kernel() << " " << weight.name;
    }
  }
}

TEST(CudaRoundedInputs, FollowTheDefinition) {
  LOWBIT_SKIP_WITHOUT_BACKEND("cuda");
  uint64_t seed = 0;
  std::vector<Case> cases = device_cases();
  for (const auto& some : {all_cases(), float_cases()}) {
    cases.insert(cases.end(), some.begin(), some.end());
  }
  for (const char* kernel : {"", "tile"}) {
    const ScopedVariable forced("LOWBIT_CUDA_LINEAR", kernel);
    const auto backend = make_backend("cuda");
    for (const Case& c : cases) {
      const LinearWeight weight = make_weight(c, ++seed);
      const std::vector<float> x = inputs(20, c.cols), truth = expected(weight, x, 20);
      const auto linear = backend->make_linear({weight});
      // Rounded: codes, and so their products, are exact; outliers and what is dequantized are
      // halves. Tensor cores keep 13 bits of a sum of products of 8-bit floats.
      const bool halves = c.outliers > 0 || linear->kernel().find("16_") != std::string::npos;
      const bool floats = linear->kernel().find("e4m3") != std::string::npos;
      EXPECT_LT(relative_error(multiply(*backend, *linear, x, 20), truth), halves   ? 2e-3
                                                                           : floats ? 0x1p-11
                                                                                    : 2e-4)
          << linear->kernel() << " " << weight.name << " " << c.outliers;
    }
  }
}

TEST(CudaRoundedInputs, ATokensResultIsTheSameInAnyBatch) {
  LOWBIT_SKIP_WITHOUT_BACKEND("cuda");
  uint64_t seed = 0;
  const auto backend = make_backend("cuda");
  for (const Case& c : device_cases()) {
    ++seed;
    const std::vector<float> x = inputs(600, c.cols);
    const auto linear = backend->make_linear({make_weight(c, seed), make_weight(c, seed)});
    const std::vector<float> whole = multiply(*backend, *linear, x, 600);
    for (const int64_t tokens : {1, 9, 16, 17, 64, 65, 128, 129, 257, 400}) {
      const std::vector<float> y = multiply(*backend, *linear, x, tokens);
      ASSERT_TRUE(std::equal(y.begin(), y.end(), whole.begin()))
          << linear->kernel() << " " << name_of(c.scheme) << " " << tokens << " tokens";
    }
  }
}

TEST(CudaRoundedInputs, IntegersAreSummedExactly) {
  LOWBIT_SKIP_WITHOUT_BACKEND("cuda");
  const auto backend = make_backend("cuda"), ref = make_backend("ref", {1});
  for (const int bits : {4, 8}) {
    QuantScheme scheme = int_scheme(bits, 1 << 20);
    scheme.input_bits = 8;
    const LinearWeight weight = make_weight({scheme, 130, 4224, 0}, 1);
    const std::vector<float> x = inputs(70, 4224);
    const auto linear = backend->make_linear({weight});
    EXPECT_EQ(linear->kernel().rfind(bits == 4 ? "q4_cuda_a8" : "q8_cuda_a8", 0), 0u);
    EXPECT_LT(relative_error(multiply(*backend, *linear, x, 70),
                             multiply(*ref, *ref->make_linear({weight}), x, 70)),
              5e-7);
  }
}

TEST(CudaRoundedInputs, InputsThatAreNotFiniteMakeTheirTokensNaN) {
  LOWBIT_SKIP_WITHOUT_BACKEND("cuda");
  const auto backend = make_backend("cuda");
  for (const Case& c : {device_cases()[0], device_cases()[1]}) {
    std::vector<float> x = inputs(3, c.cols);
    x[static_cast<size_t>(c.cols + 4)] = std::numeric_limits<float>::infinity();
    std::fill(x.begin() + 2 * c.cols, x.end(), 0.f);
    const LinearWeight weight = make_weight(c, 1);
    const std::vector<float> y = multiply(*backend, *backend->make_linear({weight}), x, 3);
    for (int64_t n = 0; n < c.rows; ++n) {
      EXPECT_TRUE(std::isfinite(y[n]));
      EXPECT_TRUE(std::isnan(y[c.rows + n]));
      EXPECT_EQ(y[2 * c.rows + n], 0);
    }
  }
}

TEST(RoundedInputs, OutliersAreMultipliedApartWhateverTheInputs) {
  uint64_t seed = 0;
  for (const Case& c : all_cases()) {
    const LinearWeight weight = make_weight(c, ++seed);
    const std::vector<float> x = inputs(9, c.cols);
    const auto ref = make_backend("ref", {1, Activations::kF32});
    const auto exact = multiply(*ref, *ref->make_linear({weight}), x, 9);
    struct Way {
      const char* backend;
      Activations activations;
      double bound;
    };
    for (const Way& way :
         {Way{"cpu", Activations::kF32, 1e-5}, Way{"cpu", Activations::kInt8, 3e-2},
          Way{"cuda", Activations::kF32, 1e-5}}) {
      if (!test::backend_problem(way.backend).empty()) continue;
      const auto backend = make_backend(way.backend, {1, way.activations});
      const auto linear = backend->make_linear({weight});
      EXPECT_LT(relative_error(multiply(*backend, *linear, x, 9), exact), way.bound)
          << linear->kernel() << " " << weight.name;
    }
  }
}

TEST(RoundedInputs, ATokensResultIsTheSameInAnyBatchOnAnyThreads) {
  uint64_t seed = 0;
  for (const Case& c : all_cases()) {
    ++seed;
    const std::vector<float> x = inputs(70, c.cols);
    std::vector<float> whole;
    for (const int threads : {1, 2}) {
      const auto backend = make_backend("cpu", {threads});
      const auto linear = backend->make_linear({make_weight(c, seed), make_weight(c, seed)});
      if (whole.empty()) whole = multiply(*backend, *linear, x, 70);
      for (const int64_t tokens : {1, 3, 32, 33, 69}) {
        const std::vector<float> y = multiply(*backend, *linear, x, tokens);
        ASSERT_TRUE(std::equal(y.begin(), y.end(), whole.begin())) << linear->kernel();
      }
    }
  }
}

TEST(RoundedInputs, PartsWithOtherOutliersStayApart) {
  Case c{int_scheme(8, 96), 16, 96, 5};
  c.scheme.input_bits = 8;
  const LinearWeight first = make_weight(c, 1);
  LinearWeight second = make_weight(c, 5);
  auto other = std::make_shared<OutlierColumns>(*second.weight.outliers);
  other->columns[0] = (other->columns[0] + 1) % 96;
  while (std::count(other->columns.begin(), other->columns.end(), other->columns[0]) > 1) {
    other->columns[0] = (other->columns[0] + 1) % 96;
  }
  second.weight.outliers = other;
  const std::vector<float> x = inputs(4, 96);
  const auto backend = make_backend("cpu", {1});
  const auto linear = backend->make_linear({first, second});
  const std::vector<float> found = multiply(*backend, *linear, x, 4);
  const std::vector<float> a = expected(first, x, 4), b = expected(second, x, 4);
  for (int64_t t = 0; t < 4; ++t) {
    for (int64_t n = 0; n < 16; ++n) {
      EXPECT_NEAR(found[t * 32 + n], a[t * 16 + n], 1e-4);
      EXPECT_NEAR(found[t * 32 + 16 + n], b[t * 16 + n], 1e-4);
    }
  }
}

TEST(RoundedInputs, RowsAsEmbeddingsAreThoseOfDequantize) {
  uint64_t seed = 0;
  for (const Case& c : all_cases()) {
    const LinearWeight weight = make_weight(c, ++seed);
    const std::vector<float> dense = dequantize(weight.weight);
    const auto backend = make_backend("cpu", {1});
    const std::vector<int32_t> ids = {0, static_cast<int32_t>(c.rows - 1), 3};
    Tensor out = backend->allocate(3, c.cols);
    backend->make_linear({weight})->embed(ids, out);
    for (int64_t i = 0; i < 3; ++i) {
      const auto row = dense.begin() + ids[static_cast<size_t>(i)] * c.cols;
      ASSERT_TRUE(std::equal(row, row + c.cols, out.row(i))) << weight.name;
    }
  }
}

TEST(RoundedInputs, TheDescriptionSaysWhetherTheyAre) {
  Case c{int_scheme(4, 64), 8, 64, 0};
  c.scheme.input_bits = 4;
  const auto description = [&](const char* name, Activations activations) {
    const auto backend = make_backend(name, {1, activations});
    EXPECT_EQ(backend->description().find("checkpoint"), std::string::npos);
    backend->make_linear({make_weight(c, 1)});
    return backend->description();
  };
  for (const char* name : {"cpu", "ref"}) {
    EXPECT_NE(description(name, Activations::kDefault).find("4 bits a token where"),
              std::string::npos);
    EXPECT_NE(description(name, Activations::kF32).find("not the 4 bits"), std::string::npos);
  }
}

TEST(InputCodes, HoldTheLargestExactly) {
  std::vector<int8_t> codes(5);
  const std::vector<float> x = {-3.f, 1.5f, 0.f, 2.9f, 0.7f};
  EXPECT_EQ(round_inputs(x.data(), 5, 4, codes.data()), 3.f / 7);
  EXPECT_EQ(codes, (std::vector<int8_t>{-7, 4, 0, 7, 2}));  // 3.5 goes to the even 4
  EXPECT_EQ(round_inputs(x.data(), 5, 8, codes.data()), 3.f / 127);
  EXPECT_EQ(codes[0], -127);
}

TEST(InputCodes, OfZerosAndOfWhatIsNotFinite) {
  std::vector<int8_t> codes(40, 1);
  std::vector<float> x(40, 0.f);
  EXPECT_EQ(round_inputs(x.data(), 40, 8, codes.data()), 0.f);
  EXPECT_EQ(codes, std::vector<int8_t>(40, 0));
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    x[37] = bad;
    EXPECT_TRUE(std::isnan(round_inputs(x.data(), 40, 8, codes.data())));
    EXPECT_EQ(codes, std::vector<int8_t>(40, 0));
  }
  x[37] = std::numeric_limits<float>::max();
  EXPECT_TRUE(std::isfinite(round_inputs(x.data(), 40, 8, codes.data())));
  EXPECT_EQ(codes[37], 127);
}

}  // namespace
}  // namespace lowbit

#include "lowbit/runtime/cpu/fit_kernels.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/runtime/cpu/isa.h"
#include "support/random.h"

namespace lowbit::cpu {
namespace {

std::vector<float> values(int64_t count, uint64_t seed) {
  std::vector<float> result = test::gaussian(static_cast<size_t>(count), seed);
  for (float& value : result) value *= 6;
  return result;
}

TEST(FitKernels, SoftmaxIsTheDefinition) {
  for (const int64_t count : {1, 7, 16, 333}) {
    const std::vector<float> scores = values(count, 1);
    std::vector<float> made = scores;
    const float log_sum = fit_kernels().softmax(made.data(), count, 0.3f);
    double sum = 0;
    for (const float score : scores) sum += std::exp(0.3 * score);
    EXPECT_NEAR(log_sum, std::log(sum), 1e-5);
    for (int64_t i = 0; i < count; ++i) {
      EXPECT_NEAR(made[i], std::exp(0.3 * scores[i]) / sum, 2e-6) << i;
    }
  }
}

TEST(FitKernels, GiveTheSameBitsOnEveryInstructionSet) {
  if (!detect_features().avx2_fma_f16c) GTEST_SKIP() << "no AVX2";
  const int64_t count = 203;
  const std::vector<float> gate = values(count, 1), up = values(count, 2), dout = values(count, 3);
  std::vector<float> softmax[2], out[2], dgate[2], dup[2];
  for (int i = 0; i < 2; ++i) {
    const FitKernels& kernels = i == 0 ? kPlainFitKernels : kAvx2FitKernels;
    softmax[i] = gate;
    for (auto* result : {out, dgate, dup}) result[i].resize(static_cast<size_t>(count));
    kernels.softmax(softmax[i].data(), count, 0.7f);
    kernels.swiglu(gate.data(), up.data(), out[i].data(), count);
    kernels.swiglu_backward(gate.data(), up.data(), dout.data(), dgate[i].data(), dup[i].data(),
                            count);
  }
  EXPECT_EQ(softmax[0], softmax[1]);
  EXPECT_EQ(out[0], out[1]);
  EXPECT_EQ(dgate[0], dgate[1]);
  EXPECT_EQ(dup[0], dup[1]);
}

}  // namespace
}  // namespace lowbit::cpu

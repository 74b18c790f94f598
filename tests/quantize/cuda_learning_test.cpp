// Learning on a GPU against the same on the CPU.
#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/quantize/autoround.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/learned_rounding.h"
#include "lowbit/quantize/learning.h"
#include "lowbit/runtime/cuda/fit.h"
#include "support/backends.h"
#include "support/random_block.h"

namespace lowbit {
namespace {

class CudaLearning : public testing::Test {
 protected:
  void SetUp() override { LOWBIT_SKIP_WITHOUT_BACKEND("cuda"); }
};

// TF32 keeps 10 bits of mantissa: products of a few hundred terms agree to some 1e-3.
constexpr double kError = 4e-3;

void compare_passes(const test::BlockShape& shape, SequenceBatch batch) {
  ThreadPool pool(2);
  const auto rope = std::make_shared<RopeTables>(rope_tables({}, shape.head_dim, batch.length));
  const auto size = batch.tokens() * shape.hidden;
  const std::vector<float> x = test::random_values(size, 5, 1.f),
                           dy = test::random_values(size, 6, 1.f);
  std::vector<float> y(x.size()), dx(x.size());
  const BlockWeights weights = test::random_block(shape);
  DecoderBlock host(weights, rope, pool);
  BlockTrace trace;
  BlockGradients gradients;
  host.forward(batch, x, trace, y);
  host.backward(x, trace, dy, gradients, dx);

  cuda::Fit fit;
  const auto downloaded = [&](const cuda::DeviceArray& array) {
    std::vector<float> values(array.size());
    fit.download(array.data(), values);
    return values;
  };
  BasicDecoderBlock<cuda::Fit> device(weights, rope, fit);
  BasicBlockTrace<cuda::DeviceArray> device_trace;
  BasicBlockGradients<cuda::DeviceArray> device_gradients;
  const cuda::DeviceArray device_x = fit.uploaded(x), device_dy = fit.uploaded(dy);
  cuda::DeviceArray device_y, device_dx;
  device_y.resize(x.size());
  device_dx.resize(x.size());
  for (int pass = 0; pass < 2; ++pass) {  // the second one finds buffers in use
    device.forward(batch, device_x, device_trace, device_y);
    for (cuda::DeviceArray& gradient : device_gradients) fit.fill_zero(gradient);
    device.backward(device_x, device_trace, device_dy, device_gradients, device_dx);
    EXPECT_LT(test::relative_error(downloaded(device_y), y), kError);
    EXPECT_LT(test::relative_error(downloaded(device_dx), dx), kError);
    for (size_t n = 0; n < kBlockLinears; ++n) {
      EXPECT_LT(test::relative_error(downloaded(device_gradients[n]), gradients[n]), kError) << n;
    }
  }
}

TEST_F(CudaLearning, PassesOfALlamaBlock) { compare_passes({}, {2, 9}); }
TEST_F(CudaLearning, PassesWithBiasesAndNormalizedHeads) {
  test::BlockShape shape;
  shape.bias = shape.qk_norm = true;
  compare_passes(shape, {3, 16});
}
TEST_F(CudaLearning, PassesWithASlidingWindow) {
  test::BlockShape shape;
  shape.window = 3;
  compare_passes(shape, {2, 17});
}
// Weights as small as in a model of that width: larger ones make a softmax that is all but a choice
// of one key, whose slopes multiply every error.
TEST_F(CudaLearning, PassesOfManyTiles) {
  compare_passes({.hidden = 192,
                  .intermediate = 320,
                  .heads = 6,
                  .kv_heads = 2,
                  .head_dim = 32,
                  .scale = 0.07f},
                 {2, 150});
}
TEST_F(CudaLearning, PassesOfSizesThatAreNoMultipleOfFour) {
  compare_passes({.hidden = 30, .intermediate = 42, .heads = 3, .kv_heads = 1, .head_dim = 6},
                 {2, 7});
}

// A block to be rounded, and its data.
struct Setting {
  static constexpr int64_t kSamples = 6, kTokens = 24;

  explicit Setting(Zero zero)
      : block(test::random_block({.hidden = 32, .intermediate = 64})),
        input(kSamples, kTokens, 32),
        target(kSamples, kTokens, 32) {
    schemes.fill(int_scheme(3, 16, zero));
    const std::vector<float> x = test::gaussian(kSamples * kTokens * 32, 3);
    std::copy(x.begin(), x.end(), input.sample(0).begin());
    make_learning("cpu", pool)->forward(block, rope, input, target);
  }
  BlockResult round(const Learning& learning, std::array<RoundingState, kBlockLinears>& states,
                    int64_t iterations) {
    BlockJob job{.block = block,
                 .schemes = schemes,
                 .rope = rope,
                 .quantized_input = &input,
                 .target = &target,
                 .pool = pool,
                 .learning = learning,
                 .seed = 1,
                 .roundings = &states,
                 .progress = nullptr,
                 .notice = nullptr};
    AutoRoundOptions options;
    options.iterations = iterations;
    return AutoRound(options).quantize(job);
  }
  double error(const BlockResult& result) {
    BlockWeights rounded = block;
    for (size_t n = 0; n < kBlockLinears; ++n) {
      rounded.linears[n].weight = dequantize(result[n]);
    }
    HiddenStates made(kSamples, kTokens, 32);
    make_learning("cpu", pool)->forward(rounded, rope, input, made);
    double sum = 0;
    for (int64_t s = 0; s < kSamples; ++s) {
      for (size_t i = 0; i < made.sample(s).size(); ++i) {
        sum += std::pow(made.sample(s)[i] - target.sample(s)[i], 2);
      }
    }
    return sum;
  }

  ThreadPool pool{2};
  std::shared_ptr<const RopeTables> rope =
      std::make_shared<RopeTables>(rope_tables({}, 8, kTokens));
  BlockWeights block;
  HiddenStates input, target;
  std::array<QuantScheme, kBlockLinears> schemes;
};

TEST_F(CudaLearning, RoundsAsWellAsTheCpu) {
  for (const Zero zero : {Zero::kNone, Zero::kInt}) {
    Setting setting(zero);
    std::array<RoundingState, kBlockLinears> states, again;
    const auto device = make_learning("cuda", setting.pool);
    const BlockResult start = setting.round(*device, states, 1);
    const BlockResult made = setting.round(*device, states, 60);
    const BlockResult same = setting.round(*device, again, 60);
    const BlockResult host = setting.round(*make_learning("cpu", setting.pool), again, 60);
    EXPECT_LT(setting.error(made), 0.8 * setting.error(start));
    EXPECT_LT(setting.error(made), 1.15 * setting.error(host));
    for (size_t n = 0; n < kBlockLinears; ++n) {
      EXPECT_EQ(dequantize(made[n]), dequantize(same[n])) << "not the same twice: " << n;
    }
  }
}

}  // namespace
}  // namespace lowbit

// What an NVIDIA GPU makes of weights, against the host: rtn and hqq to the bit, gptq as far as
// Hessians of halves are those of floats.
#include <gtest/gtest.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/quantize/gptq.h"
#include "lowbit/quantize/hqq.h"
#include "lowbit/quantize/quantize_device.h"
#include "lowbit/quantize/rtn.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"
#include "support/backends.h"
#include "support/quantize_runs.h"
#include "support/random.h"

namespace lowbit {
namespace {

// Weights in 16 bits, some groups of zeros and some of one size.
QTensor stored_weight(Code code, int64_t rows, int64_t cols, uint64_t seed) {
  std::vector<float> values = test::gaussian(static_cast<size_t>(rows * cols), seed);
  std::vector<uint8_t> bytes(values.size() * 2);
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = i / 32 % 11 == 3 ? 0.f : i / 32 % 17 == 5 ? 0.25f : 0.05f * values[i];
    const uint16_t half = code == Code::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
    std::memcpy(bytes.data() + 2 * i, &half, 2);
  }
  QTensor weight;
  weight.scheme = dense_scheme(code);
  weight.rows = rows;
  weight.cols = cols;
  weight.codes = Bytes::own(std::move(bytes));
  return weight;
}

void expect_equal(const QTensor& found, const QTensor& expected) {
  ASSERT_EQ(found.codes.size, expected.codes.size);
  EXPECT_EQ(found.scales, expected.scales);
  EXPECT_EQ(found.zeros, expected.zeros);
  EXPECT_EQ(found.offsets, expected.offsets);
  EXPECT_EQ(found.input_order, expected.input_order);
  EXPECT_EQ(std::memcmp(found.codes.data, expected.codes.data, expected.codes.size), 0);
}

// How many of the codes differ.
double share_of_other_codes(const QTensor& a, const QTensor& b) {
  int64_t other = 0;
  for (int64_t row = 0; row < a.rows; ++row) {
    for (int64_t k = 0; k < a.cols; ++k) {
      const int64_t begin = row * a.row_bytes();
      other += unpack(a.codes.data + begin, k, a.scheme.bits) !=
               unpack(b.codes.data + begin, k, b.scheme.bits);
    }
  }
  return static_cast<double>(other) / static_cast<double>(a.rows * a.cols);
}

class CudaQuantizer : public testing::Test {
 protected:
  void SetUp() override {
    LOWBIT_SKIP_WITHOUT_BACKEND("cuda");
    device_ = make_quantize_device("cuda", 1);
  }

  static LinearJob host_job(const QTensor& weight, const std::vector<float>& values) {
    return {"w", weight.rows, weight.cols, values, nullptr};
  }
  LinearJob device_job(const QTensor& weight) const {
    return {"w", weight.rows, weight.cols, {}, nullptr, device_.get(), &weight};
  }
  void expect_same(const Quantizer& quantizer, const QTensor& weight, const QuantScheme& scheme) {
    const std::vector<float> values = dequantize(weight);
    const QTensor expected = quantizer.quantize(host_job(weight, values), scheme);
    expect_equal(quantizer.quantize(device_job(weight), scheme), expected);
  }

  std::unique_ptr<QuantizeDevice> device_;
};

TEST_F(CudaQuantizer, RoundsToNearestAsTheHostToTheBit) {
  for (const bool search : {false, true}) {
    const Rtn rtn(search ? Rtn::Search::kScale : Rtn::Search::kNone);
    for (const int bits : {2, 3, 4, 8}) {
      for (const Zero zero : {Zero::kNone, Zero::kInt}) {
        for (const int64_t group : {32, 64, 128, 384}) {
          SCOPED_TRACE(concat(search, " ", bits, " ", zero == Zero::kInt, " ", group));
          expect_same(rtn, stored_weight(Code::kBF16, 37, 384, bits),
                      int_scheme(bits, group, zero));
        }
      }
    }
  }
}

TEST_F(CudaQuantizer, TakesWeightsAsTheyAreStored) {
  const QTensor halves = stored_weight(Code::kF16, 21, 96, 1);
  expect_same(Rtn(), halves, int_scheme(4, 32));
  const QTensor floats = dense_f32(dequantize(halves), 21, 96);
  expect_same(Rtn(), floats, int_scheme(4, 32));
  const std::vector<float> values = dequantize(halves);
  const QTensor codes = Rtn().quantize(host_job(halves, values), int_scheme(8, 32, Zero::kInt));
  expect_same(Rtn(), codes, int_scheme(4, 32));
}

TEST_F(CudaQuantizer, HalfQuadraticIsTheHostsToTheBit) {
  for (const int bits : {1, 2, 3, 4, 8}) {
    for (const int64_t group : {32, 64, 384}) {
      SCOPED_TRACE(concat(bits, " ", group));
      expect_same(Hqq(), stored_weight(Code::kBF16, 53, 384, bits),
                  int_scheme(bits, group, Zero::kOffset));
    }
  }
}

TEST_F(CudaQuantizer, NamesThePlaceOfABadWeight) {
  for (const float bad : {INFINITY, NAN, 1e9f}) {
    std::vector<float> values = test::gaussian(40 * 64, 1);
    values[17 * 64 + 5] = bad;
    const QTensor weight = dense_f32(values, 40, 64);
    std::string expected, found;
    for (const bool on_device : {false, true}) {
      try {
        Rtn().quantize(on_device ? device_job(weight) : host_job(weight, values),
                       int_scheme(4, 32));
      } catch (const Error& error) {
        (on_device ? found : expected) = error.what();
      }
    }
    EXPECT_NE(found, "");
    EXPECT_EQ(found, expected);
  }
}

// Small whole numbers: sums of their products are exact, so that both have the same Hessian.
std::vector<float> whole_inputs(int64_t tokens, int64_t cols) {
  const std::vector<float> noise = test::gaussian(static_cast<size_t>(tokens * cols), 5);
  std::vector<float> x(noise.size());
  for (int64_t t = 0; t < tokens; ++t) {
    float carried = 0;
    for (int64_t k = 0; k < cols; ++k) {
      carried = 0.9f * carried + noise[t * cols + k];
      x[t * cols + k] = k == 7 ? 0 : std::round(carried * (k % 7 == 3 ? 8.f : 2.f));
    }
  }
  return x;
}

struct GptqCase {
  ActOrder order;
  int64_t group;
  Zero zero;
  bool search;
};

TEST_F(CudaQuantizer, GptqMakesTheHostsCodesOfTheSameHessian) {
  constexpr int64_t kRows = 75, kCols = 384, kTokens = 1000;
  const std::vector<float> x = whole_inputs(kTokens, kCols);
  const QTensor weight = stored_weight(Code::kBF16, kRows, kCols, 3);
  const std::vector<float> values = dequantize(weight);
  std::vector<double> hessian(kCols * kCols);
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t i = 0; i < kCols; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        hessian[i * kCols + j] += double(x[t * kCols + i]) * x[t * kCols + j];
      }
    }
  }
  ThreadPool pool(1);
  for (const GptqCase& c : {GptqCase{ActOrder::kStatic, 64, Zero::kNone, false},
                            GptqCase{ActOrder::kStatic, 128, Zero::kInt, true},
                            GptqCase{ActOrder::kNone, 96, Zero::kInt, false},
                            GptqCase{ActOrder::kNone, 384, Zero::kNone, true},
                            GptqCase{ActOrder::kKept, 32, Zero::kNone, false},
                            GptqCase{ActOrder::kKept, 192, Zero::kInt, true}}) {
    SCOPED_TRACE(concat(static_cast<int>(c.order), " ", c.group));
    GptqOptions options;
    options.act_order = c.order;
    options.search_scale = c.search;
    const QuantScheme scheme = int_scheme(4, c.group, c.zero);
    const GptqFactor factor = gptq_factor("w", hessian, kCols, options, pool);
    const QTensor expected = gptq_round(host_job(weight, values), scheme, factor, options);
    const auto gptq = device_->gptq(kCols);
    gptq->add(test::tensor_of(device_->backend(), {x.begin(), x.begin() + 600 * kCols}, 600));
    gptq->add(test::tensor_of(device_->backend(), {x.begin() + 600 * kCols, x.end()}, 400));
    EXPECT_EQ(gptq->factor("w", options), options.damp_percent);
    const QTensor found = gptq->round(device_job(weight), scheme, options);
    EXPECT_EQ(found.input_order, expected.input_order);
    if (c.order == ActOrder::kStatic) {
      EXPECT_EQ(found.scales, expected.scales);
      EXPECT_EQ(found.zeros, expected.zeros);
    }
    // Factors are summed in another order: a unit in the last place may turn a code over.
    EXPECT_LT(share_of_other_codes(found, expected), 1e-3);
    expect_equal(gptq->round(device_job(weight), scheme, options), found);
  }
}

TEST_F(CudaQuantizer, GptqRaisesTheDampingOfASingularHessian) {
  constexpr int64_t kCols = 200;
  const std::vector<float> x = whole_inputs(3, kCols);
  GptqOptions options;
  options.damp_percent = 1e-17;
  const auto gptq = device_->gptq(kCols);
  gptq->add(test::tensor_of(device_->backend(), x, 3));
  EXPECT_GE(gptq->factor("w", options), 0.01);
}

TEST_F(CudaQuantizer, RunsOfThePipelineEqualThoseOfTheHost) {
  const test::TemporaryFolder folder;
  test::write_tiny_folder(folder / "model", test::tiny_folder_config());
  for (const char* method : {"rtn", "rtn-search", "hqq"}) {
    SCOPED_TRACE(method);
    QuantizeOptions options;
    options.method = method;
    options.group_size = 32;
    options.threads = 1;
    options.force = true;
    quantize_checkpoint(folder / "model", folder / "host", options);
    options.backend = "cuda";
    quantize_checkpoint(folder / "model", folder / "device", options);
    EXPECT_EQ(test::snapshot(folder / "device"), test::snapshot(folder / "host"));
  }
}

// The options of a calibrated run, and the model and text that it needs.
QuantizeOptions calibrated_run(const test::TemporaryFolder& folder) {
  test::write_tiny_folder(folder / "model", test::tiny_folder_config());
  std::string text;
  for (int i = 0; i < 900; ++i) text += concat("Line ", i * i % 97, " of ", i, ".\n");
  test::write_text(folder / "text.txt", text);
  QuantizeOptions options;
  options.method = "gptq";
  options.group_size = 32;
  options.threads = 1;
  options.calibration = {folder / "text.txt", 24, 60};
  return options;
}

std::string output_of(const test::TemporaryFolder& folder, const std::string& name,
                      const QuantizeOptions& options) {
  quantize_checkpoint(folder / "model", folder / name, options);
  return folder / name;
}

TEST_F(CudaQuantizer, CalibratedRunsComeCloseToTheHosts) {
  const test::TemporaryFolder folder;
  QuantizeOptions options = calibrated_run(folder);
  const auto host = open_checkpoint(output_of(folder, "host", options));
  options.backend = "cuda";
  const auto device = open_checkpoint(output_of(folder, "device", options));
  const ModelConfig config = parse_model_config(test::tiny_folder_config(), nullptr, "test");
  for (int64_t index = 0; index < config.num_hidden_layers; ++index) {
    for (const auto& group : block_linears(config, index)) {
      for (const LinearSlot& slot : group) {
        const QTensor expected = host->load_linear(slot.module, slot.rows, slot.cols).weight;
        const QTensor found = device->load_linear(slot.module, slot.rows, slot.cols).weight;
        EXPECT_EQ(found.scales, expected.scales) << slot.module;
        // Inputs of 16 bits turn a code over here and there, and those after it in the row; later
        // blocks see what came of that.
        EXPECT_LT(share_of_other_codes(found, expected), index == 0 ? 0.1 : 0.25) << slot.module;
      }
    }
  }
}

int points_left = 0;
void stop_at_point(const char*) {
  if (--points_left == 0) fail(ErrorKind::kIo, "stopped");
}

TEST_F(CudaQuantizer, CalibratedRunsMakeTheSameBytesAlsoAfterAStop) {
  const test::TemporaryFolder folder;
  QuantizeOptions options = calibrated_run(folder);
  options.backend = "cuda";
  options.commit_seconds = 0;
  const auto expected = test::snapshot(output_of(folder, "first", options));
  EXPECT_EQ(test::snapshot(output_of(folder, "second", options)), expected);
  for (const int point : {8, 14, 20}) {
    SCOPED_TRACE(point);
    points_left = point;
    fault_hook = stop_at_point;
    EXPECT_NE(test::quantize_error(folder / "model", folder / "stopped", options), "");
    fault_hook = nullptr;
    EXPECT_EQ(test::snapshot(output_of(folder, "stopped", options)), expected);
    fs::remove_all(folder / "stopped");
  }
}

}  // namespace
}  // namespace lowbit

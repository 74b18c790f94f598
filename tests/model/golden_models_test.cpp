// Every family and variant against transformers, on every backend.
#include <gtest/gtest.h>

#include "support/backends.h"
#include "support/tiny_model.h"

namespace lowbit {
namespace {

struct Case {
  std::string model;
  std::string backend;
  Activations activations;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.model << "_" << c.backend
             << (c.activations == Activations::kInt8      ? "_int8"
                 : c.activations == Activations::kDefault ? "_default"
                                                          : "");
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const test::TinyGolden& golden : test::tiny_goldens().models) {
    for (const std::string& backend : backend_names()) {
      cases.push_back({golden.name, backend, Activations::kF32});
      // Dense weights are multiplied by fp32 activations whatever the setting.
      if (backend == "cpu") cases.push_back({golden.name, backend, Activations::kInt8});
      if (backend == "cuda") cases.push_back({golden.name, backend, Activations::kDefault});
    }
  }
  return cases;
}

class GoldenModels : public testing::TestWithParam<Case> {
 protected:
  GoldenModels()
      : golden_(test::tiny_goldens().model(GetParam().model)), checkpoint_(golden_.config) {}
  void SetUp() override {
    LOWBIT_SKIP_WITHOUT_BACKEND(GetParam().backend);
    backend_ = make_backend(GetParam().backend, {2, GetParam().activations});
    model_ = std::make_unique<Model>(checkpoint_, *backend_,
                                     ModelOptions{.context = 256, .progress = false});
    ids_ = test::tiny_prompt(test::tiny_goldens().prompt_tokens, model_->config().vocab_size);
  }

  const test::TinyGolden& golden_;
  test::TinyCheckpoint checkpoint_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::vector<int32_t> ids_;
};

TEST_P(GoldenModels, LogitsEqualTransformers) {
  const std::vector<float> logits = test::run_chunks(*model_, ids_, {40});
  std::vector<float> rows;
  for (const int32_t row : test::tiny_goldens().rows) {
    const auto begin = logits.begin() + row * model_->config().vocab_size;
    rows.insert(rows.end(), begin, begin + model_->config().vocab_size);
  }
  const bool rounded = GetParam().activations == Activations::kDefault;  // to 16 bits
  const double bound = GetParam().backend == "ref" ? 1e-5 : rounded ? 1e-2 : 1e-4;
  EXPECT_LT(test::relative_error(rows, golden_.logits), bound);
}

TEST_P(GoldenModels, ChunksOfAnySizeGiveTheSameBits) {
  for (const DType kv_dtype : {DType::kF32, DType::kF16}) {
    const std::vector<float> whole = test::run_chunks(*model_, ids_, {40}, kv_dtype);
    EXPECT_EQ(whole, test::run_chunks(*model_, ids_, {1}, kv_dtype));
    EXPECT_EQ(whole, test::run_chunks(*model_, ids_, {3, 17, 1, 5}, kv_dtype));
  }
}

TEST_P(GoldenModels, SequencesInOneBatchDoNotTouchEachOther) {
  const int64_t vocab = model_->config().vocab_size;
  const std::vector<int32_t> other(ids_.rbegin(), ids_.rend());
  const std::vector<float> alone = test::run_chunks(*model_, ids_, {40});
  const std::vector<float> other_alone = test::run_chunks(*model_, other, {40});

  // Blocks of the two alternate; the second sequence is 9 tokens behind the first.
  KvCache cache = model_->make_kv_cache(2, DType::kF32);
  const auto step = [&](int64_t first, int64_t count, int64_t behind, int64_t other_count) {
    StepBatch batch;
    batch.tokens.assign(ids_.begin() + first, ids_.begin() + first + count);
    batch.tokens.insert(batch.tokens.end(), other.begin() + behind,
                        other.begin() + behind + other_count);
    batch.sequences = {{0, count, first, {1}}, {count, other_count, behind, {0}}};
    for (int64_t i = 0; i < batch.size(); ++i) batch.logit_rows.push_back(int32_t(i));
    const Tensor out = model_->forward(batch, cache);
    std::vector<float> logits(static_cast<size_t>(out.size()));
    backend_->copy_to_host(out, logits);
    for (int64_t i = 0; i < out.rows; ++i) {
      const bool mine = i < count;
      const float* expected = mine ? alone.data() + (first + i) * vocab
                                   : other_alone.data() + (behind + i - count) * vocab;
      ASSERT_TRUE(std::equal(expected, expected + vocab, logits.data() + i * vocab))
          << "row " << i << " of the step at " << first;
    }
  };
  step(0, 20, 0, 11);
  for (int64_t i = 0; i < 10; ++i) step(20 + i, 1, 11 + i, 1);
  step(30, 10, 21, 3);
}

// Halves hold keys and values to three digits; more would be a mistake in the cache.
TEST_P(GoldenModels, HalfPrecisionCacheIsNear) {
  const std::vector<float> exact = test::run_chunks(*model_, ids_, {40}, DType::kF32);
  const std::vector<float> half = test::run_chunks(*model_, ids_, {40}, DType::kF16);
  // With rounded activations a key that rounds differently may round what follows differently too.
  const bool rounded = GetParam().activations == Activations::kDefault;
  EXPECT_LT(test::relative_error(half, exact), rounded ? 1e-2 : 2e-3);
  EXPECT_NE(half, exact);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenModels, testing::ValuesIn(all_cases()),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace lowbit

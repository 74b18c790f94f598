#include "lowbit/bench/random_model.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/model/model.h"
#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit {
namespace {

TEST(RandomModel, EveryNamedSchemeMakesAValidWeightOfSimilarSpread) {
  for (const std::string& name : format_names()) {
    const QTensor weight = random_weight(format_by_name(name), 48, 256, 1);
    validate(weight, name);
    double squares = 0;
    for (const float value : dequantize(weight)) squares += double(value) * value;
    EXPECT_NEAR(std::sqrt(squares / (48 * 256)), 0.02, 0.012) << name;
  }
}

TEST(RandomModel, IsAModelOfTheShapeAskedFor) {
  const auto checkpoint = make_random_model(
      {"smollm2-135m", format_by_name("q4_0"), format_by_name("q8_0"), /*layers=*/1});
  const auto backend = make_backend("cpu");
  Model model(*checkpoint, *backend, {.context = 64, .max_batch = 8, .progress = false});
  EXPECT_EQ(model.config().hidden_size, 576);
  EXPECT_EQ(model.config().num_hidden_layers, 1);
  KvCache cache = model.make_kv_cache(1);
  StepBatch batch;
  batch.tokens = {1, 2};
  batch.sequences = {{0, 2, 0, {0}}};
  batch.logit_rows = {1};
  const Tensor logits = model.forward(batch, cache);
  double squares = 0;
  for (int64_t i = 0; i < logits.cols; ++i) squares += double(logits.row(0)[i]) * logits.row(0)[i];
  EXPECT_TRUE(std::isfinite(squares));
  EXPECT_GT(squares, 0);
}

TEST(RandomModel, NamesWhatThereIs) {
  EXPECT_THROW(make_random_model({"llama-9b", {}, {}}), Error);
  EXPECT_THROW(format_by_name("q4_9"), Error);
  const auto checkpoint = make_random_model({"llama-3.1-8b", format_by_name("f16"), {}});
  const Tokenizer tokenizer(checkpoint->tokenizer());
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{'h', 'i', 128255}, false), "hiw128255");
  EXPECT_TRUE(checkpoint->contains("lm_head.weight"));
}

}  // namespace
}  // namespace lowbit

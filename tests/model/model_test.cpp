#include "lowbit/model/model.h"

#include <gtest/gtest.h>

#include "support/tiny_model.h"

namespace lowbit {
namespace {

Json tiny_config(const char* changes = "{}") {
  Json config = test::tiny_goldens().model("llama").config;
  config.merge_patch(Json::parse(changes));
  return config;
}

class TinyModel : public testing::Test {
 protected:
  std::vector<float> logits(const Checkpoint& checkpoint) {
    Model model(checkpoint, *backend_, {.progress = false});
    return test::run_chunks(model, {1, 2, 3, 4, 5}, {5});
  }
  void expect_error(const Checkpoint& checkpoint, const std::string& part) {
    try {
      Model model(checkpoint, *backend_, {.progress = false});
      ADD_FAILURE() << "loaded";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorruptFile);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }

  std::unique_ptr<Backend> backend_ = make_backend("ref", {2, Activations::kDefault});
};

TEST_F(TinyModel, BlockLinearsHaveTheShapesOfTheConfig) {
  const ModelConfig config = parse_model_config(
      tiny_config(R"({"num_key_value_heads": 2, "attention_bias": true})"), nullptr, "tiny");
  const auto groups = block_linears(config, 1);
  ASSERT_EQ(groups.size(), 4u);
  EXPECT_EQ(groups[0][1].module, "model.layers.1.self_attn.k_proj");
  EXPECT_EQ(groups[0][1].rows, 32);
  EXPECT_EQ(groups[0][1].cols, 64);
  EXPECT_TRUE(groups[0][1].bias);
  EXPECT_EQ(groups[3][0].module, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(groups[3][0].cols, 96);
  EXPECT_FALSE(groups[3][0].bias);
}

// As transformers 5: equal copies are one weight, different ones are two, one stands for both.
TEST_F(TinyModel, TiedHeadsFollowWhatIsStored) {
  const Json tied = tiny_config(R"({"tie_word_embeddings": true})");
  const test::TinyCheckpoint one(tied);
  const std::vector<float> expected = logits(one);

  test::TinyCheckpoint equal(tied);
  equal.add("lm_head", 128, 64, false);
  equal.linear("lm_head").weight = equal.linear("model.embed_tokens").weight;
  EXPECT_EQ(logits(equal), expected);
  EXPECT_TRUE(Model(equal, *backend_).config().tie_word_embeddings);

  test::TinyCheckpoint head_only = equal;
  head_only.remove("model.embed_tokens");
  EXPECT_EQ(logits(head_only), expected);

  test::TinyCheckpoint different(tied);
  different.add("lm_head", 128, 64, false);
  EXPECT_EQ(logits(different), logits(test::TinyCheckpoint(tiny_config())));
  EXPECT_FALSE(Model(different, *backend_).config().tie_word_embeddings);
}

TEST_F(TinyModel, AMissingHeadIsAnErrorUnlessTied) {
  test::TinyCheckpoint checkpoint(tiny_config());
  checkpoint.remove("lm_head");
  expect_error(checkpoint, "lm_head.weight is missing");
}

TEST_F(TinyModel, BiasesMustAgreeWithTheConfig) {
  const std::string q = "model.layers.0.self_attn.q_proj";
  test::TinyCheckpoint zeros(tiny_config());
  const std::vector<float> expected = logits(zeros);
  zeros.linear(q).bias.assign(64, 0.f);
  EXPECT_EQ(logits(zeros), expected);
  zeros.linear(q).bias[5] = 1.f;
  expect_error(zeros, q + ".bias is stored");

  test::TinyCheckpoint missing(tiny_config(R"({"attention_bias": true})"));
  missing.linear(q).bias.clear();
  expect_error(missing, q + ".bias is missing");
}

TEST_F(TinyModel, RefusesWhatIsOutOfRange) {
  const test::TinyCheckpoint checkpoint(tiny_config());
  EXPECT_THROW(Model(checkpoint, *backend_, {.context = 513}), Error);
  EXPECT_THROW(Model(checkpoint, *backend_, {.context = -1}), Error);
  EXPECT_THROW(Model(checkpoint, *backend_, {.max_batch = 0}), Error);

  Model model(checkpoint, *backend_, {.context = 64, .max_batch = 4});
  KvCache cache = model.make_kv_cache(2);
  const auto run = [&](std::vector<int32_t> tokens, int64_t position,
                       std::vector<int32_t> rows = {0}) {
    const auto count = static_cast<int64_t>(tokens.size());
    model.forward({std::move(tokens), {{0, count, position, {0, 1}}}, std::move(rows)}, cache);
  };
  EXPECT_NO_THROW(run({1, 2, 3, 127}, 60));
  EXPECT_THROW(run({}, 0), Error);
  EXPECT_THROW(run({1, 2, 3, 4, 5}, 0), Error);
  EXPECT_THROW(run({128}, 0), Error);
  EXPECT_THROW(run({-1}, 0), Error);
  EXPECT_THROW(run({1, 2}, 63), Error);
  EXPECT_THROW(run({1}, -1), Error);
  EXPECT_THROW(run({1}, INT64_MAX), Error);
  EXPECT_THROW(run({1}, 0, {1}), Error);
}

TEST_F(TinyModel, LogitsInPiecesEqualLogitsAtOnce) {
  const test::TinyCheckpoint checkpoint(tiny_config());
  Model model(checkpoint, *backend_, {.progress = false});
  const StepBatch batch{{5, 6, 7}, {{0, 3, 0, {0}}}, {0, 2}};
  KvCache cache = model.make_kv_cache(1);
  std::vector<float> whole(2 * 128), pieces(2 * 128);
  backend_->copy_to_host(model.forward(batch, cache), whole);

  const Tensor hidden = model.hidden_states(batch, cache);
  ASSERT_EQ(hidden.rows, 2);
  for (int64_t row = 0; row < 2; ++row) {
    Tensor one = hidden.first(1);
    one.data = hidden.row(row);
    backend_->copy_to_host(model.logits(one), std::span(pieces).subspan(row * 128, 128));
  }
  EXPECT_EQ(pieces, whole);
}

TEST_F(TinyModel, CountsTheBytesOfADecodeStep) {
  const test::TinyCheckpoint checkpoint(tiny_config());
  const Model model(checkpoint, *backend_, {.progress = false});
  const int64_t embedding = 128 * 64;  // only one row of it is read
  EXPECT_EQ(model.weight_bytes(), 4 * (model.config().parameters() - embedding));
  EXPECT_EQ(model.kernels(), "dequantize x 9");
}

}  // namespace
}  // namespace lowbit

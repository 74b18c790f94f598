#include "lowbit/checkpoint/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/gguf_pretokenizers.h"
#include "lowbit/tokenizer/pretokenize.h"
#include "lowbit/tokenizer/tokenizer.h"
#include "support/paths.h"

namespace lowbit {
namespace {

GgufMetadata metadata_of(std::vector<std::pair<std::string, GgufValue>> values) {
  GgufMetadata metadata;
  metadata.origin = "test";
  for (auto& [key, value] : values) metadata.values[key] = std::move(value);
  return metadata;
}

GgufMetadata small_spm() {
  return metadata_of({{"tokenizer.ggml.model", gguf_string("llama")},
                      {"tokenizer.ggml.tokens",
                       gguf_strings({"<unk>", "<s>", "a", "b", "\u2581", "ab", "\u2581ab"})},
                      {"tokenizer.ggml.scores", gguf_f32s({0, 0, -10, -11, -12, -1, -2})},
                      {"tokenizer.ggml.token_type", gguf_i32s({2, 3, 1, 1, 1, 1, 1})},
                      {"tokenizer.ggml.bos_token_id", gguf_u32(1)},
                      {"tokenizer.ggml.unknown_token_id", gguf_u32(0)}});
}

std::string message_of(const GgufMetadata& metadata) {
  try {
    const Tokenizer tokenizer(tokenizer_from_gguf(metadata));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(GgufTokenizer, DerivesMergesFromScores) {
  const Tokenizer tokenizer(tokenizer_from_gguf(small_spm()));
  EXPECT_EQ(tokenizer.encode("ab b?"), (std::vector<int32_t>{1, 6, 4, 3, 0}));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{6, 4, 3}), "ab b");
}

TEST(GgufTokenizer, KnowsEveryPreTokenizerThatItNames) {
  for (const GgufPreTokenizer& row : gguf_pre_tokenizers()) {
    SCOPED_TRACE(row.names[0]);
    const PreTokenizer pre_tokenizer(row.pre_tokenizer, "test");
    Pieces pieces;
    pieces.text = "I'll have 1234 \u4f60\u597d, \n\n \u00e9t\u00e9!";
    pieces.spans = {{0, static_cast<uint32_t>(pieces.text.size())}};
    pre_tokenizer.split(pieces);
    EXPECT_GT(pieces.spans.size(), 5u);
    for (const std::string& name : row.names) EXPECT_EQ(find_gguf_pre_tokenizer(name), &row);
    const GgufPreTokenizer* found =
        find_gguf_pre_tokenizer(row.pre_tokenizer, row.ignore_merges, row.nfc);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->pre_tokenizer, row.pre_tokenizer);
  }
}

TEST(GgufTokenizer, NamesWhatItDoesNotKnow) {
  GgufMetadata metadata = small_spm();
  metadata.values["tokenizer.ggml.model"] = gguf_string("gpt2");
  metadata.values["tokenizer.ggml.pre"] = gguf_string("martian");
  EXPECT_NE(message_of(metadata).find("martian"), std::string::npos);
  EXPECT_NE(message_of(metadata).find("llama-bpe"), std::string::npos);
  metadata.values["tokenizer.ggml.model"] = gguf_string("bert");
  EXPECT_NE(message_of(metadata).find("bert"), std::string::npos);
}

TEST(GgufTokenizer, RefusesContradictions) {
  const auto broken = [](const char* key, GgufValue value) {
    GgufMetadata metadata = small_spm();
    metadata.values[std::string("tokenizer.ggml.") + key] = std::move(value);
    return !message_of(metadata).empty();
  };
  EXPECT_FALSE(broken("bos_token_id", gguf_u32(1)));
  EXPECT_TRUE(broken("bos_token_id", gguf_u32(7)));
  EXPECT_TRUE(broken("scores", gguf_f32s({0, 0})));
  EXPECT_TRUE(broken("scores", gguf_f32s({0, 0, NAN, 0, 0, 0, 0})));
  EXPECT_TRUE(broken("token_type", gguf_i32s({1})));
  EXPECT_TRUE(broken("tokens", gguf_strings({})));
  EXPECT_TRUE(broken("tokens", gguf_strings({"<unk>", "<s>", "a", "a", "b", "c", "d"})));
  EXPECT_TRUE(broken("tokens", gguf_strings({"<unk>", "<s>", "\xff", "a", "b", "c", "d"})));
  EXPECT_FALSE(broken("tokens", gguf_strings({"<unk>", "<s>", "<0x-1>", "<0xZZ>", "b", "c", "d"})));
}

class GgufRoundTrip : public testing::TestWithParam<const char*> {};

TEST_P(GgufRoundTrip, KeepsTheSpec) {
  const std::string name = GetParam();
  const std::string path = name == "smollm2"
                               ? test::smollm2()
                               : test::shared("data/vocab-gguf/ggml-vocab-" + name + ".gguf");
  LOWBIT_SKIP_WITHOUT(path, name);
  const MappedFile file(path);
  const TokenizerSpec spec = tokenizer_from_gguf(parse_gguf(file.bytes(), path).metadata);
  const TokenizerSpec again = tokenizer_from_gguf(metadata_of(tokenizer_to_gguf(spec)));
  EXPECT_EQ(again.vocab, spec.vocab);
  EXPECT_TRUE(again.merges == spec.merges);
  EXPECT_EQ(again.unk_token, spec.unk_token);
  EXPECT_EQ(again.normalizer, spec.normalizer);
  EXPECT_EQ(again.pre_tokenizer, spec.pre_tokenizer);
  EXPECT_EQ(again.post_processor, spec.post_processor);
  EXPECT_EQ(again.decoder, spec.decoder);
  EXPECT_EQ(again.added_tokens.size(), spec.added_tokens.size());
  EXPECT_EQ(again.chat_template, spec.chat_template);
  EXPECT_EQ(again.bos_token, spec.bos_token);
  EXPECT_EQ(again.ignore_merges, spec.ignore_merges);
}

INSTANTIATE_TEST_SUITE_P(Real, GgufRoundTrip,
                         testing::Values("smollm2", "llama-spm", "gpt-2", "starcoder",
                                         "deepseek-llm"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

TEST(GgufTokenizer, HoldsLlama3) {
  const std::string folder = test::shared("models/llama-3.1-tokenizer");
  LOWBIT_SKIP_WITHOUT(folder, "models/llama-3.1-tokenizer");
  const TokenizerSpec spec = read_tokenizer_spec(folder);
  const TokenizerSpec again = tokenizer_from_gguf(metadata_of(tokenizer_to_gguf(spec)));
  EXPECT_EQ(again.pre_tokenizer, spec.pre_tokenizer);
  EXPECT_TRUE(again.merges == spec.merges);
  EXPECT_TRUE(again.ignore_merges);
  const std::string text =
      "Hello, y'all!<|eot_id|> 12345 \u4f60\u597d <|reserved_special_token_5|>";
  EXPECT_EQ(Tokenizer(again).encode(text), Tokenizer(spec).encode(text));
}

}  // namespace
}  // namespace lowbit

#include "lowbit/tokenizer/tokenizer_spec.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/base/file.h"
#include "lowbit/tokenizer/tokenizer.h"
#include "support/paths.h"

namespace lowbit {
namespace {

constexpr char kSmall[] = R"({
  "added_tokens": [{"id": 4, "content": "<s>", "special": true, "normalized": false}],
  "pre_tokenizer": {"type": "Whitespace"},
  "decoder": null,
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c d": 3},
            "merges": ["a b"], "ignore_merges": true}})";

std::string temporary_folder(const char* name) {
  const fs::path folder = fs::path(testing::TempDir()) / name;
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder.string();
}

void expect_equal(const TokenizerSpec& a, const TokenizerSpec& b) {
  EXPECT_EQ(a.vocab, b.vocab);
  EXPECT_EQ(a.merges, b.merges);
  EXPECT_EQ(a.unk_token, b.unk_token);
  EXPECT_EQ(a.byte_fallback, b.byte_fallback);
  EXPECT_EQ(a.fuse_unk, b.fuse_unk);
  EXPECT_EQ(a.ignore_merges, b.ignore_merges);
  EXPECT_EQ(a.normalizer, b.normalizer);
  EXPECT_EQ(a.pre_tokenizer, b.pre_tokenizer);
  EXPECT_EQ(a.post_processor, b.post_processor);
  EXPECT_EQ(a.decoder, b.decoder);
  EXPECT_EQ(a.bos_token, b.bos_token);
  EXPECT_EQ(a.eos_token, b.eos_token);
  EXPECT_EQ(a.unk_content, b.unk_content);
  EXPECT_EQ(a.pad_token, b.pad_token);
  EXPECT_EQ(a.chat_template, b.chat_template);
  ASSERT_EQ(a.added_tokens.size(), b.added_tokens.size());
  for (size_t i = 0; i < a.added_tokens.size(); ++i) {
    const AddedToken &x = a.added_tokens[i], &y = b.added_tokens[i];
    EXPECT_EQ(
        std::tie(x.id, x.content, x.single_word, x.lstrip, x.rstrip, x.normalized, x.special),
        std::tie(y.id, y.content, y.single_word, y.lstrip, y.rstrip, y.normalized, y.special));
  }
}

TokenizerSpec written_and_read(const TokenizerSpec& spec, const char* name) {
  const std::string folder = temporary_folder(name);
  write_file_atomic(folder + "/tokenizer.json", tokenizer_json(spec));
  write_file_atomic(folder + "/tokenizer_config.json", tokenizer_config_json(spec));
  return read_tokenizer_spec(folder);
}

TEST(TokenizerSpec, ReadsMergesAsTextAndAsPairs) {
  const TokenizerSpec spec = parse_tokenizer_json(Json::parse(kSmall), "test");
  EXPECT_EQ(spec.vocab, (std::vector<std::string>{"a", "b", "ab", "c d"}));
  EXPECT_TRUE(spec.ignore_merges);
  ASSERT_EQ(spec.merges.size(), 1u);
  Json document = Json::parse(kSmall);
  document["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  EXPECT_EQ(parse_tokenizer_json(document, "test").merges, spec.merges);
}

TEST(TokenizerSpec, ReadsBackWhatItWrites) {
  TokenizerSpec spec = parse_tokenizer_json(Json::parse(kSmall), "test");
  spec.bos_token = "<s>";
  spec.chat_template = "{{ messages }}\n\u00e9";
  expect_equal(written_and_read(spec, "small"), spec);
}

TEST(TokenizerSpec, ReadsBackLlama3WithEqualEncodings) {
  const std::string folder = test::shared("models/llama-3.1-tokenizer");
  LOWBIT_SKIP_WITHOUT(folder, "models/llama-3.1-tokenizer");
  const TokenizerSpec spec = read_tokenizer_spec(folder);
  EXPECT_EQ(spec.vocab.size(), 128'000u);
  EXPECT_EQ(spec.merges.size(), 280'147u);
  EXPECT_EQ(spec.added_tokens.size(), 256u);
  EXPECT_EQ(spec.eos_token, "<|eot_id|>");
  EXPECT_FALSE(spec.chat_template.empty());
  expect_equal(written_and_read(spec, "llama3"), spec);
  EXPECT_EQ(Tokenizer(spec).encode("Hello world"), (std::vector<int32_t>{128000, 9906, 1917}));
}

TEST(TokenizerSpec, TakesTokensAndTemplatesFromTheOtherFiles) {
  const std::string folder = temporary_folder("config");
  write_file_atomic(folder + "/tokenizer.json", kSmall);
  write_file_atomic(folder + "/tokenizer_config.json", R"({
    "bos_token": {"content": "<s>"}, "eos_token": null,
    "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}],
    "added_tokens_decoder": {"4": {"content": "<s>", "special": true},
                             "5": {"content": "<x>", "special": true}}})");
  write_file_atomic(folder + "/special_tokens_map.json", R"({"eos_token": "<x>"})");
  TokenizerSpec spec = read_tokenizer_spec(folder);
  EXPECT_EQ(spec.bos_token, "<s>");
  EXPECT_EQ(spec.eos_token, "<x>");
  EXPECT_EQ(spec.chat_template, "d");
  ASSERT_EQ(spec.added_tokens.size(), 2u);
  EXPECT_EQ(spec.added_tokens[1].id, 5);
  write_file_atomic(folder + "/chat_template.jinja", "jinja");
  EXPECT_EQ(read_tokenizer_spec(folder).chat_template, "jinja");
}

TEST(TokenizerSpec, RefusesWhatIsNotATokenizer) {
  const std::vector<std::string> documents = {
      "[]",
      "{}",
      R"({"model": {"type": "Unigram", "vocab": []}})",
      R"({"model": {"type": "BPE", "vocab": [], "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 1.5}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 3999999}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 18446744073709551615}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": {}}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b c"]}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "w"}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 1}]})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": {"id": 1}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [7]})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
          "added_tokens": [{"id": "x", "content": "y"}]})"};
  for (const std::string& document : documents) {
    EXPECT_THROW(parse_tokenizer_json(Json::parse(document), "test"), Error) << document;
  }
  EXPECT_THROW(read_tokenizer_spec("/nonexistent"), Error);
}

}  // namespace
}  // namespace lowbit

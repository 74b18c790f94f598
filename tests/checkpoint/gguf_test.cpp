#include "lowbit/checkpoint/gguf.h"

#include <gtest/gtest.h>

#include <cstring>

#include "lowbit/base/check.h"
#include "support/files.h"
#include "support/paths.h"

namespace lowbit {
namespace {

using test::TemporaryFolder;

StoredTensor stored(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                    size_t bytes) {
  std::vector<uint8_t> data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<uint8_t>(i * 7 + 1);
  return {name, dtype, std::move(shape), Bytes::own(std::move(data))};
}

std::vector<std::pair<std::string, GgufValue>> some_metadata() {
  return {{"general.architecture", gguf_string("llama")},
          {"llama.block_count", gguf_u32(2)},
          {"llama.rope.freq_base", gguf_f32(10000.f)},
          {"tokenizer.ggml.add_bos_token", gguf_bool(true)},
          {"tokenizer.ggml.tokens", gguf_strings({"a", "", "c\0d"})},
          {"tokenizer.ggml.token_type", gguf_i32s({1, 3, -1})},
          {"tokenizer.ggml.scores", gguf_f32s({0.5, -1000})}};
}

TEST(Gguf, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.gguf";
  write_gguf(path, some_metadata(),
             {stored("norm.weight", "F32", {5}, 20), stored("w", "Q4_0", {3, 64}, 108)});
  const std::string bytes = read_file(path, 1 << 20);
  const GgufContents contents = test::parse(parse_gguf, bytes);
  EXPECT_EQ(contents.version, 3u);
  const GgufMetadata& metadata = contents.metadata;
  EXPECT_EQ(metadata.get_string("general.architecture"), "llama");
  EXPECT_EQ(metadata.get_int("llama.block_count"), 2);
  EXPECT_EQ(metadata.get_double("llama.rope.freq_base"), 10000.0);
  EXPECT_TRUE(metadata.get_bool("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(metadata.get_strings("tokenizer.ggml.tokens").size(), 3u);
  EXPECT_EQ(metadata.get_numbers("tokenizer.ggml.token_type"), (std::vector<double>{1, 3, -1}));
  EXPECT_EQ(metadata.get_numbers("tokenizer.ggml.scores"), (std::vector<double>{0.5, -1000}));
  ASSERT_EQ(contents.tensors.size(), 2u);
  EXPECT_EQ(contents.tensors[1].name, "w");
  EXPECT_EQ(contents.tensors[1].ne, (std::vector<int64_t>{64, 3}));
  EXPECT_EQ(contents.tensors[1].begin % 32, 0u);
  EXPECT_EQ(contents.tensors[1].begin, contents.tensors[0].begin + 32);
  EXPECT_EQ(contents.tensors[1].size, 108u);
  EXPECT_EQ(static_cast<uint8_t>(bytes[contents.tensors[1].begin]), 1);
  EXPECT_EQ(bytes.size() % 32, 0u);
}

TEST(Gguf, TypedGettersRefuseOtherTypes) {
  const TemporaryFolder folder;
  write_gguf(folder / "m.gguf", some_metadata(), {});
  const GgufMetadata metadata =
      test::parse(parse_gguf, read_file(folder / "m.gguf", 1 << 20)).metadata;
  EXPECT_THROW(metadata.get_int("general.architecture"), Error);
  EXPECT_THROW(metadata.get_int("llama.rope.freq_base"), Error);
  EXPECT_THROW(metadata.get_double("llama.block_count"), Error);
  EXPECT_THROW(metadata.get_bool("llama.block_count"), Error);
  EXPECT_THROW(metadata.get_string("tokenizer.ggml.tokens"), Error);
  EXPECT_THROW(metadata.get_bool("tokenizer.ggml.tokens"), Error);
  EXPECT_THROW(metadata.get_strings("tokenizer.ggml.scores"), Error);
  EXPECT_THROW(metadata.get_numbers("tokenizer.ggml.tokens"), Error);
  EXPECT_THROW(metadata.get_numbers("llama.block_count"), Error);
  EXPECT_THROW(metadata.get_int("absent"), Error);
  EXPECT_EQ(metadata.get_int("absent", 7), 7);
  EXPECT_EQ(metadata.get_string("absent", "x"), "x");
  EXPECT_TRUE(metadata.get_strings("absent").empty());
}

TEST(Gguf, WriterRefusesWhatTheFormatCannotHold) {
  const TemporaryFolder folder;
  const std::string path = folder / "m.gguf";
  EXPECT_THROW(write_gguf(path, {}, {stored("w", "Q4_0", {3, 33}, 108)}), Error);
  EXPECT_THROW(write_gguf(path, {}, {stored("w", "Q4_0", {3, 64}, 107)}), Error);
  EXPECT_THROW(write_gguf(path, {}, {stored("w", "U8", {4}, 4)}), Error);
  EXPECT_THROW(write_gguf(path, {}, {stored(std::string(64, 'n'), "F32", {1}, 4)}), Error);
  EXPECT_THROW(write_gguf(path, {}, {stored("w", "F32", {1}, 4), stored("w", "F32", {1}, 4)}),
               Error);
  EXPECT_THROW(write_gguf(path, {{"a", gguf_u32(1)}, {"a", gguf_u32(1)}}, {}), Error);
}

TEST(Gguf, ReadsAFileOfTheGgufPackage) {
  const std::string path = test::golden("../fuzz/corpus/gguf/llama.gguf");
  const MappedFile file(path);
  const GgufContents contents = parse_gguf(file.bytes(), path);
  EXPECT_EQ(contents.tensors.size(), 13u);
  EXPECT_EQ(contents.tensors[11].name, "token_embd.weight");
  EXPECT_EQ(contents.tensors[11].ne, (std::vector<int64_t>{8, 2}));
  EXPECT_EQ(contents.metadata.get_strings("tokenizer.ggml.tokens"),
            (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE(contents.metadata.get_bool("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(contents.metadata.get_numbers("factors").size(), 16u);
  EXPECT_EQ(contents.metadata.get_int("llama.context_length"), 128);
}

TEST(Gguf, ReadsVocabularyOnlyFiles) {
  const std::string path = test::shared("data/vocab-gguf/ggml-vocab-gpt-2.gguf");
  LOWBIT_SKIP_WITHOUT(path, "shared data");
  const MappedFile file(path);
  const GgufContents contents = parse_gguf(file.bytes(), path);
  EXPECT_TRUE(contents.tensors.empty());
  EXPECT_GT(contents.metadata.get_strings("tokenizer.ggml.tokens").size(), 50'000u);
}

}  // namespace
}  // namespace lowbit

// Encodings and decodings compared with Hugging Face `tokenizers`, through hashes made by
// tools/golden/tokenizer.py.
#include <gtest/gtest.h>

#include "lowbit/base/file.h"
#include "lowbit/base/json.h"
#include "lowbit/checkpoint/gguf.h"
#include "lowbit/checkpoint/gguf_tokenizer.h"
#include "lowbit/tokenizer/tokenizer.h"
#include "lowbit/tokenizer/utf8.h"
#include "support/paths.h"
#include "support/random.h"

namespace lowbit {
namespace {

constexpr int kBlock = 100;

// The same strings as tools/golden/tokenizer.py makes.
std::string random_string(uint64_t seed) {
  static const std::u32string spaces = U"\t\n\r \u0085\u00a0\u2003\u2028\u3000";
  static const std::vector<std::string> snippets = {
      "'s",         "'LL",  "'re",           "'\u017f",      "\r\n",    "  ",
      " \n",        "1234", "<0x41>",        "\u2581",       "e\u0301", "<|eot_id|>",
      "<|im_end|>", "</s>", "<|endoftext|>", "\u1100\u1161", "\ufb01"};
  constexpr std::pair<char32_t, int> kRanges[] = {
      {0xA0, 0x500}, {0x300, 0x70}, {0x900, 0x500}, {0x4E00, 0x5000}, {0x1F300, 0x700}};
  test::Random random(seed);
  std::string out;
  for (int64_t left = random.below(48); left > 0; --left) {
    const int64_t kind = random.below(12);
    if (kind <= 3) {
      append_utf8(static_cast<char32_t>(0x20 + random.below(95)), out);
    } else if (kind == 4) {
      append_utf8(spaces[static_cast<size_t>(random.below(static_cast<int64_t>(spaces.size())))],
                  out);
    } else if (kind == 5) {
      out += snippets[static_cast<size_t>(random.below(static_cast<int64_t>(snippets.size())))];
    } else if (kind <= 10) {
      const auto& [first, count] = kRanges[kind - 6];
      append_utf8(first + static_cast<char32_t>(random.below(count)), out);
    } else {
      const auto code = static_cast<char32_t>(random.below(0x110000));
      append_utf8(code >= 0xD800 && code < 0xE000 ? 0xFFFD : code, out);
    }
  }
  return out;
}

uint64_t mix(uint64_t hash, uint64_t number) { return (hash ^ number) * 0x100000001B3u + 1; }

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

const Json& goldens() {
  static const Json document = read_json(test::golden("tokenizer/encodings.json"));
  return document;
}

// The file of a tokenizer; empty if absent.
std::string path_of(const std::string& name) {
  if (name == "smollm2") return test::smollm2();
  if (name == "llama-3.1") return test::shared("models/llama-3.1-tokenizer");
  return test::shared("data/vocab-gguf/ggml-vocab-" + name + ".gguf");
}

TokenizerSpec read_spec(const std::string& path) {
  if (fs::is_directory(path)) return read_tokenizer_spec(path);
  const MappedFile file(path);
  return tokenizer_from_gguf(parse_gguf(file.bytes(), path).metadata);
}

constexpr EncodeOptions kPlain = {.add_special_tokens = false, .parse_special = true};

void expect_blocks(const Tokenizer& tokenizer, const Json& golden) {
  const auto blocks = golden["encoded"].get<std::vector<std::string>>();
  for (size_t block = 0; block < blocks.size(); ++block) {
    uint64_t encoded = 0, decoded = 0;
    for (uint64_t seed = block * kBlock; seed < (block + 1) * kBlock; ++seed) {
      const std::vector<int32_t> ids = tokenizer.encode(random_string(seed), kPlain);
      for (const int32_t id : ids) encoded = mix(encoded, static_cast<uint32_t>(id));
      encoded = mix(encoded, 0xFFFFFFFFu);
      for (const char byte : tokenizer.decode(ids))
        decoded = mix(decoded, static_cast<uint8_t>(byte));
      decoded = mix(decoded, 0xFF);
    }
    const std::string where = "strings " + std::to_string(block * kBlock) + " ff";
    ASSERT_EQ(hex(encoded), blocks[block]) << "encoding of " << where;
    ASSERT_EQ(hex(decoded), golden["decoded"][block]) << "decoding of " << where;
  }
}

class Encodings : public testing::TestWithParam<const char*> {};

TEST_P(Encodings, OfRandomStringsEqualHuggingFaces) {
  const std::string path = path_of(GetParam());
  LOWBIT_SKIP_WITHOUT(path, GetParam());
  expect_blocks(Tokenizer(read_spec(path)), goldens()["tokenizers"][GetParam()]);
}

TEST_P(Encodings, OfWikitextEqualHuggingFaces) {
  const std::string path = path_of(GetParam());
  const std::string wikitext = test::shared("data/wikitext2-test.txt");
  const Json& golden = goldens()["tokenizers"][GetParam()];
  if (!golden.contains("wikitext2")) GTEST_SKIP() << "no golden for " << GetParam();
  LOWBIT_SKIP_WITHOUT(path, GetParam());
  LOWBIT_SKIP_WITHOUT(wikitext, "data/wikitext2-test.txt");
  const Tokenizer tokenizer(read_spec(path));
  const std::string text = read_file(wikitext, size_t{1} << 24);
  const std::vector<int32_t> ids = tokenizer.encode(text, kPlain);
  uint64_t hash = 0;
  for (const int32_t id : ids) hash = mix(hash, static_cast<uint32_t>(id));
  EXPECT_EQ(ids.size(), golden["wikitext2"]["tokens"].get<size_t>());
  EXPECT_EQ(hex(hash), golden["wikitext2"]["hash"]);
  EXPECT_TRUE(tokenizer.decode(ids) == text);
}

INSTANTIATE_TEST_SUITE_P(Real, Encodings,
                         testing::Values("smollm2", "gpt-2", "starcoder", "llama-spm", "llama-3.1"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' || c == '.' ? '_' : c;
                           return name;
                         });

TEST(Encodings, WithEveryComponentEqualHuggingFaces) {
  const std::string path = path_of("gpt-2");
  LOWBIT_SKIP_WITHOUT(path, "gpt-2");
  const TokenizerSpec gpt2 = read_spec(path);
  const Json base = Json::parse(tokenizer_json(gpt2));
  for (const auto& [name, golden] : goldens()["variants"].items()) {
    SCOPED_TRACE(name);
    Json document = base;
    for (const auto& [key, component] : golden["components"].items()) document[key] = component;
    expect_blocks(Tokenizer(parse_tokenizer_json(document, name)), golden);
  }
}

// llama.cpp's own vectors: entries separated by a line, a line of ids for each.
class Vectors : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Vectors, OfLlamaCppAreMet) {
  const auto& [vectors, name] = GetParam();
  const std::string inputs =
      test::shared(std::string("data/tokenizer-vectors/ggml-vocab-") + vectors + ".gguf.inp");
  const std::string path = path_of(name);
  LOWBIT_SKIP_WITHOUT(inputs, vectors);
  LOWBIT_SKIP_WITHOUT(path, std::string("a vocabulary of ") + name);
  const Tokenizer tokenizer(read_spec(path));
  std::istringstream expected(read_file(inputs.substr(0, inputs.size() - 4) + ".out", 1 << 20));
  const std::string text = read_file(inputs, 1 << 20);
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  int count = 0;
  for (size_t begin = 0, end; (end = text.find(kSeparator, begin)) != std::string::npos;
       begin = end + kSeparator.size()) {
    std::string line;
    ASSERT_TRUE(std::getline(expected, line));
    std::istringstream numbers(line);
    const std::vector<int32_t> ids{std::istream_iterator<int32_t>(numbers), {}};
    const std::string entry = text.substr(begin, end - begin);
    EXPECT_EQ(tokenizer.encode(entry, kPlain), ids) << entry;
    ++count;
  }
  EXPECT_EQ(count, 46);
}

INSTANTIATE_TEST_SUITE_P(
    LlamaCpp, Vectors,
    testing::Values(std::pair("llama-bpe", "llama-3.1"), std::pair("llama-spm", "llama-spm"),
                    std::pair("gpt-2", "gpt-2"), std::pair("starcoder", "starcoder"),
                    std::pair("deepseek-llm", "deepseek-llm"), std::pair("phi-3", "phi-3"),
                    std::pair("deepseek-coder", "deepseek-coder"), std::pair("qwen2", "qwen2")),
    [](const auto& info) {
      std::string name = info.param.first;
      for (char& c : name) c = c == '-' ? '_' : c;
      return name;
    });

TEST(StreamDecoder, JoinsToWhatDecodeGivesInWholeCharacters) {
  for (const char* name : {"smollm2", "llama-spm", "llama-3.1"}) {
    const std::string path = path_of(name);
    if (path.empty()) continue;
    const Tokenizer tokenizer(read_spec(path));
    test::Random random(7);
    for (int round = 0; round < 500; ++round) {
      std::vector<int32_t> ids =
          tokenizer.encode(random_string(static_cast<uint64_t>(round)), kPlain);
      // Ids out of order make incomplete characters.
      for (int i = 0; i < 5; ++i)
        ids.push_back(static_cast<int32_t>(random.below(tokenizer.vocab_size() + 9)));
      if (round % 2) std::reverse(ids.begin(), ids.end());
      for (const bool skip : {false, true}) {
        StreamDecoder stream(tokenizer, skip);
        std::string joined;
        for (const int32_t id : ids) {
          const std::string part = stream.push(id);
          EXPECT_TRUE(valid_utf8(part));
          joined += part;
        }
        joined += stream.finish();
        ASSERT_EQ(joined, tokenizer.decode(ids, skip)) << name << " " << round;
      }
    }
  }
}

}  // namespace
}  // namespace lowbit

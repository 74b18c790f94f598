#include "lowbit/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "lowbit/base/check.h"
#include "lowbit/tokenizer/bpe.h"
#include "lowbit/tokenizer/byte_level.h"
#include "lowbit/tokenizer/pattern.h"
#include "lowbit/tokenizer/utf8.h"
#include "support/random.h"

namespace lowbit {
namespace {

using Ids = std::vector<int32_t>;
constexpr EncodeOptions kPlain = {.add_special_tokens = false};

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}};
}

// All 256 bytes, a few merges of 'a', and two special tokens.
TokenizerSpec small_spec() {
  TokenizerSpec spec;
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    spec.vocab.emplace_back();
    append_byte_level({&byte, 1}, spec.vocab.back());
  }
  for (const char* piece : {"aa", "aaaa", "aaaaaaaa"}) spec.vocab.emplace_back(piece);
  spec.merges = {{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}};
  spec.added_tokens = {{.id = 259, .content = "<s>"}, {.id = 260, .content = "</s>"}};
  spec.pre_tokenizer = byte_level(true);
  spec.decoder = {{"type", "ByteLevel"}};
  spec.bos_token = "<s>";
  return spec;
}

// One character each for "abc", as SentencePiece has them.
TokenizerSpec character_spec() {
  TokenizerSpec spec;
  spec.vocab = {"<unk>", "a", "b", "c", "ab", "abc", "\u2581"};
  spec.merges = {{"a", "b"}, {"ab", "c"}};
  spec.unk_token = "<unk>";
  return spec;
}

ErrorKind kind_of(const TokenizerSpec& spec) {
  try {
    const Tokenizer tokenizer(spec);
  } catch (const Error& error) {
    return error.kind();
  }
  return ErrorKind::kDevice;  // none was thrown
}

TEST(Tokenizer, TakesAddedTokensFromTextOnlyIfAsked) {
  const Tokenizer tokenizer(small_spec());
  EXPECT_EQ(tokenizer.encode("a<s>a", kPlain), (Ids{'a', 259, 'a'}));
  const Ids plain =
      tokenizer.encode("a<s>a", {.add_special_tokens = false, .parse_special = false});
  EXPECT_EQ(plain.size(), 5u);
  EXPECT_EQ(tokenizer.decode(plain), "a<s>a");
  EXPECT_EQ(tokenizer.bos_id(), 259);
  EXPECT_EQ(tokenizer.eos_id(), std::nullopt);
  EXPECT_TRUE(tokenizer.special(260));
  EXPECT_EQ(tokenizer.vocab_size(), 261);
  EXPECT_EQ(tokenizer.piece(258), "aaaaaaaa");
  EXPECT_EQ(tokenizer.piece(-1), "");
  EXPECT_EQ(tokenizer.piece(261), "");
}

TEST(Tokenizer, ReplacesInvalidBytesLikeALossyDecoder) {
  const Tokenizer tokenizer(small_spec());
  for (const auto& [bytes, text] :
       std::vector<std::pair<std::string, std::string>>{{"\xff", "\uFFFD"},
                                                        {"a\xe2\x82", "a\uFFFD"},
                                                        {"\xf0\x9f\x99", "\uFFFD"},
                                                        {"\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD"},
                                                        {"\xc0\x80x", "\uFFFD\uFFFDx"},
                                                        {"\xe2\x28\xa1", "\uFFFD(\uFFFD"}}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes, kPlain)), text);
  }
}

TEST(Tokenizer, MergesAMegabyteOfOneLetterQuickly) {
  const Tokenizer tokenizer(small_spec());
  const std::string text(1 << 20, 'a');
  EXPECT_EQ(tokenizer.encode(text, kPlain), Ids(text.size() / 8, 258));
}

// The same text in one long piece and merged by the plain definition.
TEST(Tokenizer, MergesLongPiecesByRankAndThenFromTheLeft) {
  TokenizerSpec spec = small_spec();
  spec.pre_tokenizer = byte_level(false);
  const auto merge = [&](const char* left, const char* right) {
    spec.merges.emplace_back(left, right);
    spec.vocab.push_back(std::string(left) + right);
  };
  spec.added_tokens.clear();
  merge("a", "b");
  merge("b", "a");
  merge("ab", "ab");
  merge("c", "ab");
  merge("ba", "b");
  const Tokenizer tokenizer(spec);
  test::Random random(3);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (int64_t i = random.below(300); i > 0; --i) text += "abc"[random.below(3)];
    std::vector<std::string> symbols;
    for (const char c : text) symbols.emplace_back(1, c);
    for (bool changed = true; changed;) {
      changed = false;
      for (const auto& [left, right] : spec.merges) {
        for (size_t i = 0; i + 1 < symbols.size() && !changed; ++i) {
          if (symbols[i] != left || symbols[i + 1] != right) continue;
          symbols[i] += right;
          symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(i) + 1);
          changed = true;
        }
        if (changed) break;
      }
    }
    Ids expected;
    for (const std::string& symbol : symbols) expected.push_back(*tokenizer.id_of(symbol));
    ASSERT_EQ(tokenizer.encode(text, kPlain), expected) << text;
  }
}

TEST(Tokenizer, FusesUnknownCharactersOnlyIfTold) {
  TokenizerSpec spec = character_spec();
  EXPECT_EQ(Tokenizer(spec).encode("xyabcz", kPlain), (Ids{0, 0, 5, 0}));
  spec.fuse_unk = true;
  EXPECT_EQ(Tokenizer(spec).encode("xyabcz", kPlain), (Ids{0, 5, 0}));
  spec.unk_token.clear();
  EXPECT_EQ(Tokenizer(spec).encode("xyabcz", kPlain), (Ids{5}));
}

TEST(Tokenizer, FallsBackToBytes) {
  TokenizerSpec spec = character_spec();
  spec.byte_fallback = true;
  spec.vocab.insert(spec.vocab.end(), {"<0xC3>", "<0xA9>"});
  spec.decoder = {{"type", "Sequence"},
                  {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}};
  const Tokenizer tokenizer(spec);
  EXPECT_EQ(tokenizer.encode("a\u00e9\u00ea", kPlain), (Ids{1, 7, 8, 0}));
  EXPECT_EQ(tokenizer.decode(Ids{1, 7, 8, 2}), "a\u00e9b");
  EXPECT_EQ(tokenizer.decode(Ids{7, 7, 8}), "\uFFFD\uFFFD\uFFFD");
}

TEST(Tokenizer, PutsTemplateTokensAroundAText) {
  TokenizerSpec spec = small_spec();
  const auto token = [](const char* name) -> Json {
    return {{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
  };
  spec.post_processor = {
      {"type", "TemplateProcessing"},
      {"single",
       Json::array({token("<s>"), {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, token("</s>")})},
      {"special_tokens",
       {{"<s>", {{"ids", Json::array({259})}}}, {"</s>", {{"ids", Json::array({260})}}}}}};
  EXPECT_EQ(Tokenizer(spec).encode("a"), (Ids{259, 'a', 260}));
  EXPECT_EQ(Tokenizer(spec).encode("a", kPlain), (Ids{'a'}));
  spec.post_processor["special_tokens"]["<s>"]["ids"] = {1 << 30};
  EXPECT_EQ(kind_of(spec), ErrorKind::kCorruptFile);
}

TEST(Tokenizer, RefusesContradictions) {
  const auto broken = [](auto&& change) {
    TokenizerSpec spec = small_spec();
    change(spec);
    return kind_of(spec);
  };
  EXPECT_EQ(broken([](auto&) {}), ErrorKind::kDevice);
  EXPECT_EQ(broken([](auto& s) { s.merges.push_back({"a", "b"}); }), ErrorKind::kCorruptFile);
  EXPECT_EQ(broken([](auto& s) { s.merges.push_back({"zz", "b"}); }), ErrorKind::kCorruptFile);
  EXPECT_EQ(broken([](auto& s) { s.vocab.push_back("aa"); }), ErrorKind::kCorruptFile);
  EXPECT_EQ(broken([](auto& s) { s.vocab.push_back("\xff"); }), ErrorKind::kCorruptFile);
  EXPECT_EQ(broken([](auto& s) { s.vocab.push_back(std::string(70'000, 'x')); }),
            ErrorKind::kCorruptFile);
  EXPECT_EQ(broken([](auto& s) { s.unk_token = "none"; }), ErrorKind::kCorruptFile);
  EXPECT_EQ(broken([](auto& s) { s.added_tokens[0].id = -1; }), ErrorKind::kCorruptFile);
  EXPECT_EQ(broken([](auto& s) { s.added_tokens[0].id = INT32_MAX; }), ErrorKind::kCorruptFile);
  EXPECT_EQ(broken([](auto& s) { s.added_tokens[0].id = 3; }), ErrorKind::kCorruptFile);
  EXPECT_EQ(broken([](auto& s) { s.added_tokens[1].content = "<s>"; }), ErrorKind::kCorruptFile);
  EXPECT_EQ(broken([](auto& s) { s.added_tokens[0].content = std::string(600, 'x'); }),
            ErrorKind::kCorruptFile);
  for (const char* type : {"Precompiled", "Sequence"}) {
    EXPECT_NE(broken([&](auto& s) { s.normalizer = {{"type", type}}; }), ErrorKind::kDevice);
    EXPECT_NE(broken([&](auto& s) { s.pre_tokenizer = {{"type", type}}; }), ErrorKind::kDevice);
    EXPECT_NE(broken([&](auto& s) { s.post_processor = {{"type", type}}; }), ErrorKind::kDevice);
    EXPECT_NE(broken([&](auto& s) { s.decoder = {{"type", type}}; }), ErrorKind::kDevice);
  }
  EXPECT_EQ(broken([](auto& s) { s.decoder = Json(7); }), ErrorKind::kUnsupported);
}

TEST(Tokenizer, StopsRegularExpressionsThatRunAway) {
  for (const char* regex : {"(a+)+[bc]", "(a|aa)+[bc]", "(?=(a*)*[bc])"}) {
    const auto pattern = regex_pattern(regex, "test");
    std::vector<Span> matches;
    EXPECT_THROW(pattern->find(std::string(60, 'a'), matches), Error) << regex;
  }
  EXPECT_THROW(regex_pattern("(", "test"), Error);
  EXPECT_THROW(regex_pattern("[a&&[b]]", "test"), Error);
  EXPECT_THROW(regex_pattern(std::string(70'000, 'a'), "test"), Error);
}

TEST(Tokenizer, SplitsByHandAsTheExpressionsDo) {
  test::Random random(11);
  for (const char* regex : {kGpt2Regex, kLlama3Regex, kQwen2Regex}) {
    const auto scanner = regex_pattern(regex, "test");
    const auto pcre = regex_pattern(regex, "test", /*allow_scanners=*/false);
    for (int round = 0; round < 3000; ++round) {
      static const std::vector<std::string> parts = {
          " ",  "  ",  "\n",     "\r\n",   "\t",     "'",      "s",         "'S",
          "ll", "'Re", "\u017f", "1",      "23",     "x",      "\u00e9",    "\u4e2d",
          ".",  "!!",  "\u0301", "\u00a0", "\u3000", "\u00bd", "\U0001F600"};
      std::string text;
      for (int64_t i = random.below(14); i > 0; --i) {
        text += parts[static_cast<size_t>(random.below(static_cast<int64_t>(parts.size())))];
      }
      std::vector<Span> by_hand, by_pcre;
      scanner->find(text, by_hand);
      pcre->find(text, by_pcre);
      ASSERT_EQ(by_hand.size(), by_pcre.size()) << regex << " on \"" << text << "\"";
      for (size_t i = 0; i < by_hand.size(); ++i) {
        ASSERT_EQ(by_hand[i].end, by_pcre[i].end) << regex << " on \"" << text << "\"";
      }
    }
  }
}

TEST(Tokenizer, NormalizesALongRunOfMarksInTime) {
  TokenizerSpec spec = small_spec();
  spec.normalizer = {{"type", "NFC"}};
  std::string text = "a";
  for (int i = 0; i < 200'000; ++i) text += i % 2 ? "\u0301" : "\u0323";
  const Tokenizer tokenizer(spec);
  EXPECT_GT(tokenizer.encode(text, kPlain).size(), 100'000u);
}

TEST(Tokenizer, GivesTheSameFromManyThreads) {
  const Tokenizer tokenizer(small_spec());
  const std::string text = "aaaa aaaaaaaa aaa <s> a\u00e9 aaaaaa";
  const Ids expected = Tokenizer(small_spec()).encode(text, kPlain);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) wrong += tokenizer.encode(text, kPlain) != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Tokenizer, SkipsIdsThatDoNotExistWhenDecoding) {
  const Tokenizer tokenizer(small_spec());
  EXPECT_EQ(tokenizer.decode(Ids{-5, 'a', 1 << 30, 259}), "a<s>");
  EXPECT_EQ(tokenizer.decode(Ids{'a', 259}, /*skip_special_tokens=*/true), "a");
}

}  // namespace
}  // namespace lowbit

#include "lowbit/grammar/token_masks.h"

#include <gtest/gtest.h>

#include "grammar/grammar_texts.h"
#include "lowbit/grammar/gbnf.h"
#include "lowbit/grammar/json_schema.h"

namespace lowbit::grammar {
namespace {

const std::vector<std::string> kVocabulary = {"",    "a",  "ab", "abc", "b", "c",        "bc", "{\"",
                                              "\":", " ",  "x",  "\"",  "}", "\xC3\xA9", "\xC3",
                                              "\xA9", "ab", "1", "12",  "",  "{",        ":"};
constexpr int32_t kEnd = 0;

bool has(const std::vector<uint32_t>& mask, int32_t id) {
  return (mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0;
}

// What the mask must be: every token tried by itself.
std::vector<uint32_t> slow_mask(Matcher& matcher, const std::string& text) {
  std::vector<uint32_t> mask((kVocabulary.size() + 31) / 32);
  const auto alive = [&](const std::string& whole) {
    Matcher::State state = matcher.start();
    for (const char byte : whole) state = matcher.next(state, static_cast<uint8_t>(byte));
    return state;
  };
  for (size_t id = 0; id < kVocabulary.size(); ++id) {
    const bool end = static_cast<int32_t>(id) == kEnd;
    const bool good = end ? matcher.accepts(alive(text))
                          : !kVocabulary[id].empty() && alive(text + kVocabulary[id]) >= 0;
    if (good) mask[id / 32] |= 1u << (id % 32);
  }
  return mask;
}

TEST(TokenMasks, EqualTryingEveryToken) {
  const char* sources[] = {"root ::= \"ab\" [a-c]* \"\xC3\xA9\"?", "root ::= [^b]+",
                           "root ::= \"{\" \"\\\"\" [a-z]+ \"\\\":\" \" \"? [0-9]{1,2} \"}\"",
                           "root ::= \"a\" root \"b\" | \"c\""};
  const auto trie = std::make_shared<TokenTrie>(kVocabulary);
  test::Random random(3);
  for (const char* source : sources) {
    const Network network = gbnf(source);
    Matcher matcher(network);
    TokenGrammar grammar(network, trie, {kEnd}, static_cast<int64_t>(kVocabulary.size()));
    for (int run = 0; run < 20; ++run) {
      TokenGrammar::Cursor cursor = grammar.begin();
      std::string text;
      for (int step = 0; step < 12 && !grammar.finished(cursor); ++step) {
        std::vector<uint32_t> mask((kVocabulary.size() + 31) / 32, 0xFFFFFFFF);
        grammar.allowed(cursor, mask);
        ASSERT_EQ(mask, slow_mask(matcher, text)) << source << " behind " << text;
        std::vector<int32_t> possible;
        for (size_t id = 1; id < kVocabulary.size(); ++id) {
          if (has(mask, static_cast<int32_t>(id))) possible.push_back(static_cast<int32_t>(id));
        }
        if (possible.empty()) break;
        const int32_t id = possible[random.next() % possible.size()];
        grammar.accept(cursor, id);
        text += kVocabulary[static_cast<size_t>(id)];
      }
    }
  }
}

TEST(TokenMasks, AnEndIsAllowedWhereTheTextMayEndAndFinishedWhereItMust) {
  const auto trie = std::make_shared<TokenTrie>(kVocabulary);
  TokenGrammar grammar(gbnf("root ::= \"ab\" \"c\"?"), trie, {kEnd}, 22);
  TokenGrammar::Cursor cursor = grammar.begin();
  std::vector<uint32_t> mask(1);
  grammar.allowed(cursor, mask);
  EXPECT_FALSE(has(mask, kEnd));
  EXPECT_TRUE(has(mask, 3));  // "abc"
  grammar.accept(cursor, 2);
  grammar.allowed(cursor, mask);
  EXPECT_TRUE(has(mask, kEnd));
  EXPECT_FALSE(grammar.finished(cursor));
  TokenGrammar::Cursor copy = cursor;
  grammar.accept(copy, 5);
  EXPECT_TRUE(grammar.finished(copy));
  EXPECT_FALSE(grammar.finished(cursor));  // texts do not disturb each other
}

TEST(TokenMasks, MemoryIsForgottenAndFoundAgain) {
  // Every length of the text is another state: "a" n times wants "b" n times.
  Builder builder;
  JsonText json(builder);
  const int32_t root = builder.add_rule();
  builder.define(root, json.value());
  const Network network = builder.finish(root);
  std::vector<std::string> vocabulary(200'000);
  vocabulary[1] = "[";
  vocabulary[2] = "]";
  vocabulary[3] = "1";
  TokenGrammar grammar(network, std::make_shared<TokenTrie>(vocabulary), {kEnd}, 200'000);
  TokenGrammar::Cursor cursor = grammar.begin();
  std::vector<uint32_t> mask(6'250);
  for (int depth = 0; depth < 300; ++depth) {  // 300 masks of 25 kB, twice
    grammar.allowed(cursor, mask);
    ASSERT_TRUE(has(mask, 1)) << depth;
    grammar.accept(cursor, 1);
  }
  for (int depth = 0; depth < 300; ++depth) {
    grammar.allowed(cursor, mask);
    ASSERT_TRUE(has(mask, 2)) << depth;
    grammar.accept(cursor, 2);
  }
  EXPECT_TRUE(grammar.finished(cursor));
}

TEST(TokenMasks, BehindWhatCannotBeFollowedNothingIsAllowed) {
  std::vector<std::string> vocabulary = {"", "("};
  TokenGrammar grammar(gbnf("root ::= \"(\" root \")\" | \"\""),
                       std::make_shared<TokenTrie>(vocabulary), {kEnd}, 2);
  TokenGrammar::Cursor cursor = grammar.begin();
  std::vector<uint32_t> mask(1);
  for (int depth = 0; depth < 3'000; ++depth) {
    grammar.allowed(cursor, mask);
    if (mask[0] == 0) break;
    grammar.accept(cursor, 1);
  }
  EXPECT_EQ(mask[0], 0u);
}

}  // namespace
}  // namespace lowbit::grammar

#include "lowbit/grammar/regex.h"

#include <gtest/gtest.h>

#include "grammar/grammar_texts.h"
#include "lowbit/base/check.h"
#include "lowbit/grammar/gbnf.h"

namespace lowbit::grammar {
namespace {

Network compile(std::string_view pattern, Anchoring anchoring = Anchoring::kWhole,
                Spelling spelling = Spelling::kPlain) {
  Builder builder;
  const int32_t root = builder.add_rule();
  builder.define(root, regex(builder, pattern, anchoring, spelling));
  return builder.finish(root);
}

void expect(std::string_view pattern, std::initializer_list<const char*> yes,
            std::initializer_list<const char*> no) {
  Matcher matcher(compile(pattern));
  for (const char* text : yes) EXPECT_TRUE(test::takes(matcher, text)) << pattern << " " << text;
  for (const char* text : no) EXPECT_FALSE(test::takes(matcher, text)) << pattern << " " << text;
}

TEST(Regex, MatchesAsWritten) {
  expect("abc", {"abc"}, {"", "ab", "abcd", "xabc"});
  expect("a|bc|", {"a", "bc", ""}, {"abc", "b"});
  expect("(a|b)*c", {"c", "abbac"}, {"ab", "ca"});
  expect("a+b?", {"a", "aab"}, {"", "b", "abb"});
  expect("a{2}b{1,2}c{0,}", {"aab", "aabbccc"}, {"ab", "aabbb"});
  expect("(?:ab){2,3}?", {"abab", "ababab"}, {"ab", "abababab"});
  expect("[a-cx]\\d\\w", {"a1_", "x9Z"}, {"d1a", "a1-"});
  expect("[^a-z]", {"A", "\xC3\xA9", "\xF0\x9F\x98\x80"}, {"a", "\xC3", "AB"});
  expect("^\\[\\x41\\u00e9\\]$", {"[A\xC3\xA9]"}, {"[a\xC3\xA9]"});
  expect(".", {"x", "\xE2\x82\xAC"}, {"\n", ""});
  expect("(?P<year>\\d{4})-\\d{2}", {"2024-01"}, {"2024-1"});
  expect("[\\d.-]+", {"1.2-3"}, {"a"});
}

TEST(Regex, ANumberOfEverySizeOfUtf8IsOneCharacter) {
  Matcher matcher(compile("[\\u0001-\\uffff]"));
  for (const char* text : {"\x01", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF",
                           "\xEE\x80\x80", "\xEF\xBF\xBF"}) {
    EXPECT_TRUE(test::takes(matcher, text)) << text;
  }
  // Overlong forms, surrogates and lone continuation bytes are not characters.
  for (const char* text : {"\xC0\x81", "\xE0\x80\x80", "\xED\xA0\x80", "\x80", "\xF0\x90\x80\x80"}) {
    EXPECT_FALSE(test::takes(matcher, text)) << text;
  }
}

TEST(Regex, ASearchLetsAnythingStandAround) {
  const Network network = compile("b+|^x$", Anchoring::kSearch);
  for (const char* text : {"abba", "b", "x"}) EXPECT_TRUE(test::takes(network, text));
  for (const char* text : {"", "aa", "xx"}) EXPECT_FALSE(test::takes(network, text));
}

TEST(Regex, InsideOfJsonItsCharactersAreEscaped) {
  const Network network =
      compile("a\"\\\\\n[\\u0000-\\u0002]", Anchoring::kWhole, Spelling::kJsonString);
  EXPECT_TRUE(test::takes(network, "a\\\"\\\\\\n\\u0001"));
  EXPECT_FALSE(test::takes(network, "a\"\\\\\\n\\u0001"));
  EXPECT_FALSE(test::takes(network, "a\\\"\\\\\\n\\u0003"));
}

TEST(Regex, RefusesWhatIsNotRegularOrTooLarge) {
  for (const char* pattern :
       {"(", ")", "a)", "[", "[]", "[b-a]", "*", "a**", "a{3,2}", "a{", "(?=a)", "(?<!a)", "\\1",
        "\\b", "\\p{L}", "a^b", "a$b", "\\", "\\xZZ", "a{100000}", "((a{200}){200}){200}"}) {
    EXPECT_THROW(compile(pattern), Error) << pattern;
  }
  EXPECT_THROW(compile(std::string(60'000, '(')), Error);
  EXPECT_THROW(compile(std::string(70'000, 'a')), Error);
}

TEST(Regex, WhatMakesBacktrackersHangIsQuickHere) {
  Matcher matcher(compile("(a+)+$|(a|aa)+b"));
  EXPECT_TRUE(test::takes(matcher, std::string(100'000, 'a')));
  EXPECT_FALSE(test::takes(matcher, std::string(100'000, 'a') + "!"));
}

TEST(Gbnf, ReadsLlamaCppsGrammars) {
  Matcher chess(gbnf(R"(
# A move of chess, as llama.cpp's example has it
root   ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move   ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn   ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
)"));
  EXPECT_TRUE(test::takes(chess, "1. e4 e5\n2. Nf3 Nc6\n"));
  EXPECT_FALSE(test::takes(chess, "1. e4 e9\n"));

  Matcher nested(gbnf("root ::= \"(\" root \")\" |\n   \"x\"{2,3}"));
  EXPECT_TRUE(test::takes(nested, "((xx))"));
  EXPECT_TRUE(test::takes(nested, std::string(500, '(') + "xxx" + std::string(500, ')')));
  EXPECT_FALSE(test::takes(nested, "((xx)"));
}

TEST(Gbnf, ListsMayBeLongButNestingIsBounded) {
  Matcher list(gbnf("root ::= item \",\" root | item\nitem ::= [a-z]+"));
  std::string text = "a";
  for (int i = 0; i < 20'000; ++i) text += ",b";
  EXPECT_TRUE(test::takes(list, text));
  Matcher nested(gbnf("root ::= \"(\" root \")\" | \"\""));
  EXPECT_THROW(test::takes(nested, std::string(100'000, '(')), Error);
}

TEST(Gbnf, RefusesWithTheLine) {
  for (const char* source :
       {"", "root", "root ::= other", "a ::= \"x\"", "root ::= \"x", "root ::= [a",
        "root ::= (\"a\"", "root ::= root \"a\" | \"b\"", "root ::= a \"b\"\na ::= root | \"\"",
        "root ::= \"a\" root", "root ::= \"a\"\nroot ::= \"b\"", "root ::= \"\\q\"",
        "root ::= \"a\"{2,1}", "root ::= \"\\uD800\""}) {
    EXPECT_THROW(gbnf(source), Error) << source;
  }
  try {
    gbnf("root ::= a\na ::= [z-a]");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("line 2"), std::string::npos) << error.what();
  }
}

TEST(Network, ManyRulesAreCheckedInLinearTime) {
  std::string chain = "root ::= r0\n";
  for (int i = 0; i < 3'000; ++i) {
    chain += "r" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + "\n";
  }
  EXPECT_NO_THROW(gbnf(chain + "r3000 ::= \"a\""));
  EXPECT_THROW(gbnf(chain + "r3000 ::= r0"), Error);
}

}  // namespace
}  // namespace lowbit::grammar

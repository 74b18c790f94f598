#include "lowbit/engine/stop_strings.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "support/random.h"

namespace lowbit {
namespace {

std::string feed(StopStrings& stops, const std::vector<std::string>& pieces) {
  std::string shown;
  for (const std::string& piece : pieces) shown += stops.push(piece);
  return shown;
}

TEST(StopStrings, HoldBackWhatCouldBecomeAStop) {
  StopStrings stops({"END", "\n\nQ"});
  EXPECT_EQ(stops.push("a E"), "a ");
  EXPECT_EQ(stops.push("N"), "");
  EXPECT_EQ(stops.push("T\n"), "ENT");
  EXPECT_EQ(stops.push("\n"), "");
  EXPECT_FALSE(stops.stopped());
  EXPECT_EQ(stops.push("Q rest"), "");
  EXPECT_TRUE(stops.stopped());
  EXPECT_EQ(stops.push("more"), "");
  EXPECT_EQ(stops.finish(), "");
}

TEST(StopStrings, GiveBackWhatWasHeldAtTheEnd) {
  StopStrings stops({"END"});
  EXPECT_EQ(stops.push("the EN"), "the ");
  EXPECT_EQ(stops.finish(), "EN");
}

TEST(StopStrings, TheFirstToBeCompleteWins) {
  StopStrings stops({"llo world", "o w", "lo w"});
  EXPECT_EQ(stops.push("hello world"), "hel");
  EXPECT_TRUE(stops.stopped());
}

TEST(StopStrings, WithoutStopsEverythingPasses) {
  StopStrings stops({});
  EXPECT_EQ(feed(stops, {"a", "", "b\xc3\xa9"}), "ab\xc3\xa9");
}

TEST(StopStrings, NeverSplitACharacter) {
  StopStrings stops({"\xa9!"});  // begins inside U+00E9
  EXPECT_EQ(stops.push("caf\xc3\xa9"), "caf");
  EXPECT_EQ(stops.push("s"), "\xc3\xa9s");
}

TEST(StopStrings, EmptyStopsAreRefused) { EXPECT_THROW(StopStrings({"a", ""}), Error); }

// However the text is cut into pieces, what is shown is what stands before the first stop.
TEST(StopStrings, CutsDoNotMatter) {
  test::Random random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int64_t i = random.below(30); i > 0; --i) text += "ab"[random.below(2)];
    std::vector<std::string> stops(1 + random.below(3));
    size_t end = text.size();
    for (std::string& stop : stops) {
      for (int64_t i = 1 + random.below(5); i > 0; --i) stop += "ab"[random.below(2)];
    }
    size_t complete = std::string::npos;
    for (size_t prefix = 1; prefix <= text.size() && complete == std::string::npos; ++prefix) {
      for (const std::string& stop : stops) {
        const size_t found = text.substr(0, prefix).find(stop);
        if (found != std::string::npos) complete = prefix, end = std::min(end, found);
      }
    }
    StopStrings in_pieces(stops);
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      const auto size = static_cast<size_t>(1 + random.below(4));
      shown += in_pieces.push(text.substr(at, size));
      at += size;
    }
    shown += in_pieces.finish();
    ASSERT_EQ(shown, text.substr(0, end)) << text;
    EXPECT_EQ(in_pieces.stopped(), complete != std::string::npos);
  }
}

}  // namespace
}  // namespace lowbit

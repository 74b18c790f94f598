#include "lowbit/base/json.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"

namespace lowbit {
namespace {

TEST(Json, RefusesDuplicateMembers) {
  EXPECT_THROW(parse_json(R"({"a": 1, "a": 2})", "test"), Error);
  EXPECT_NO_THROW(parse_json(R"({"a": {"a": 1}, "b": {"a": 2}})", "test"));
}

TEST(Json, RefusesDeepNesting) {
  EXPECT_THROW(parse_json(std::string(1'000'000, '['), "test"), Error);
  EXPECT_THROW(parse_json(std::string(65, '[') + std::string(65, ']'), "test"), Error);
  EXPECT_NO_THROW(parse_json(std::string(64, '[') + std::string(64, ']'), "test"));
}

TEST(Json, RefusesInvalidUtf8AndTrailingText) {
  EXPECT_THROW(parse_json("\"\xff\"", "test"), Error);
  EXPECT_THROW(parse_json("{} x", "test"), Error);
  EXPECT_THROW(parse_json("", "test"), Error);
}

TEST(Json, GettersNameWhatIsWrong) {
  const Json object = parse_json(R"({"n": "four", "big": 18446744073709551615})", "config.json");
  try {
    json_int(object, "n", 0, "config.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "config.json: \"n\" must be an integer, found \"four\"");
  }
  EXPECT_THROW(json_int(object, "big", 0, "config.json"), Error);
  EXPECT_EQ(json_int(object, "absent", 7, "config.json"), 7);
}

TEST(Json, OrderedKeepsTheTextsOrder) {
  EXPECT_EQ(dump_json(parse_ordered_json(R"({"b": 1, "a": 2})", "test")), R"({"b":1,"a":2})");
}

}  // namespace
}  // namespace lowbit

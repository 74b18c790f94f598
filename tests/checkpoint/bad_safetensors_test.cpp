// Safetensors files that are not what they should be: an Error, never a crash.
#include <gtest/gtest.h>

#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/safetensors.h"
#include "support/files.h"

namespace lowbit {
namespace {

std::string file_of(const std::string& header, size_t data_bytes, uint64_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, 'x');
}
std::string file_of(const std::string& header, size_t data_bytes) {
  return file_of(header, data_bytes, header.size());
}

// The error's text, or "" if the bytes are accepted. Another exception fails the test.
std::string error_of(const std::string& bytes) {
  try {
    test::parse(parse_safetensors, bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void expect_error(const std::string& header, size_t data_bytes, const std::string& part) {
  const std::string error = error_of(file_of(header, data_bytes));
  EXPECT_NE(error.find(part), std::string::npos) << header << "\n  gives: " << error;
}

const std::string kGood =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},)"
    R"("b":{"dtype":"U8","shape":[],"data_offsets":[12,13]}})";

TEST(BadSafetensors, TheGoodFileIsAccepted) { EXPECT_EQ(error_of(file_of(kGood, 13)), ""); }

TEST(BadSafetensors, TruncationAtEveryByteIsAnError) {
  const std::string good = file_of(kGood, 13);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(error_of(good.substr(0, size)), "") << size;
  }
}

TEST(BadSafetensors, EveryByteChangedIsAnErrorOrStillAFile) {
  const std::string good = file_of(kGood, 13);
  for (size_t at = 0; at < good.size() - 13; ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string bad = good;
      bad[at] = static_cast<char>(value);
      error_of(bad);
    }
  }
}

TEST(BadSafetensors, HeaderLengthsThatCannotBe) {
  for (const uint64_t length : {uint64_t{0}, uint64_t{1}, kGood.size() - 1, kGood.size() + 1,
                                kGood.size() + 14, uint64_t{100'000'001}, uint64_t{1} << 31,
                                uint64_t{1} << 32, uint64_t{1} << 63, UINT64_MAX - 7, UINT64_MAX}) {
    EXPECT_NE(error_of(file_of(kGood, 13, length)), "") << length;
  }
}

TEST(BadSafetensors, EveryNumberAtItsLimits) {
  for (const char* number :
       {"0", "1", "-1", "2147483648", "4294967296", "9223372036854775808", "18446744073709551615",
        "18446744073709551616", "1.5", "1e400", "null", "true", "\"3\"", "[]", "{}", "[[[[1]]]]"}) {
    const std::string text = number;
    const std::string dimension =
        R"({"a":{"dtype":"F16","shape":[)" + text + R"(,3],"data_offsets":[0,12]}})";
    EXPECT_NE(error_of(file_of(dimension, 12)), "") << dimension;
    const std::string begin =
        R"({"a":{"dtype":"F16","shape":[2,3],"data_offsets":[)" + text + R"(,12]}})";
    EXPECT_EQ(error_of(file_of(begin, 12)).empty(), text == "0") << begin;
    const std::string end =
        R"({"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,)" + text + "]}}";
    EXPECT_NE(error_of(file_of(end, 12)), "") << end;
    const std::string dtype = R"({"a":{"dtype":)" + text + R"(,"shape":[2],"data_offsets":[0,4]}})";
    EXPECT_NE(error_of(file_of(dtype, 4)), "") << dtype;
    const std::string metadata = R"({"__metadata__":{"k":)" + text + "}}";
    EXPECT_EQ(error_of(file_of(metadata, 0)).empty(), text == "\"3\"") << metadata;
  }
}

TEST(BadSafetensors, TensorsMustTileTheData) {
  const auto two = [](int begin, int end, int begin2, int end2) {
    const auto entry = [](const char* name, int from, int to) {
      return concat("\"", name, "\":{\"dtype\":\"U8\",\"shape\":[", to - from,
                    "],\"data_offsets\":[", from, ",", to, "]}");
    };
    return concat("{", entry("a", begin, end), ",", entry("b", begin2, end2), "}");
  };
  EXPECT_EQ(error_of(file_of(two(0, 4, 4, 8), 8)), "");
  EXPECT_EQ(error_of(file_of(two(4, 8, 0, 4), 8)), "");
  EXPECT_EQ(error_of(file_of(two(0, 0, 0, 8), 8)), "");
  expect_error(two(0, 4, 3, 7), 8, "inside the one before");
  expect_error(two(0, 4, 0, 4), 8, "inside the one before");
  expect_error(two(0, 4, 5, 8), 8, "after a hole");
  expect_error(two(1, 4, 4, 8), 8, "after a hole");
  expect_error(two(0, 4, 4, 7), 8, "1 bytes after the last tensor");
  expect_error(two(0, 4, 4, 9), 8, "do not fit");
  expect_error(two(4, 0, 4, 8), 8, "");
}

TEST(BadSafetensors, SizesMatchDtypeAndShape) {
  expect_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "needs 8");
  expect_error(R"({"a":{"dtype":"F17","shape":[2],"data_offsets":[0,4]}})", 4, "unknown dtype");
  expect_error(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1, "no valid size");
  expect_error(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
               "no valid size");
  expect_error(R"({"a":{"dtype":"U8","shape":[9223372036854775807,4,0],"data_offsets":[0,0]}})", 0,
               "no valid size");
  EXPECT_EQ(error_of(file_of(R"({"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}})", 2)), "");
}

TEST(BadSafetensors, TwiceTheSameNameIsAnError) {
  const std::string entry = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  expect_error(concat("{\"a\":", entry, ",\"a\":", entry, "}"), 0, "appears twice");
  expect_error(R"({"__metadata__":{},"__metadata__":{}})", 0, "appears twice");
  expect_error(R"({"__metadata__":{"a":"","a":""}})", 0, "appears twice");
  expect_error(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0,
               "appears twice");
}

TEST(BadSafetensors, EntriesMustBeComplete) {
  expect_error(R"({"a":{}})", 0, "needs dtype");
  expect_error(R"({"a":{"dtype":"U8","shape":[0]}})", 0, "needs dtype");
  expect_error(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}})", 0, "two numbers");
  expect_error(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}})", 0, "two numbers");
  expect_error(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}})", 0, "unknown");
  expect_error(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1,
               "dimensions");
  expect_error(R"({"a":1})", 0, "cannot hold");
  expect_error(R"({"__metadata__":"x"})", 0, "cannot hold");
}

TEST(BadSafetensors, TextThatIsNotAHeader) {
  expect_error("", 0, "begin with");
  expect_error("[]", 0, "begin with");
  expect_error(" {}", 0, "begin with");
  expect_error("{} {}", 0, "not valid JSON");
  expect_error("{", 0, "not valid JSON");
  expect_error("{\"\xff\":1}", 0, "not valid JSON");
  expect_error("{\"\xc3\":1}", 0, "not valid JSON");
  expect_error("{\"a\\u0000b\":{}}", 0, "control character");
  expect_error(concat("{\"", std::string(limits::kTensorNameBytes + 1, 'n'), "\":{}}"), 0, "limit");
  EXPECT_EQ(error_of(file_of("{}   ", 0)), "");
}

TEST(BadSafetensors, DeepNestingStopsAtOnce) {
  for (const char* opening : {"[", "{\"a\":"}) {
    std::string deep = "{\"a\":";
    for (int i = 0; i < 1'000'000; ++i) deep += opening;
    EXPECT_NE(error_of(file_of(deep, 0)), "");
  }
}

TEST(BadSafetensors, ErrorsDoNotRepeatLongInput) {
  const std::string longest(1 << 20, 'd');
  for (const std::string& header :
       {R"({"a":{"dtype":")" + longest + R"("}})", R"({"a":{")" + longest + R"(":1}})",
        R"({")" + longest + R"(":1})", R"({")" + longest}) {
    const std::string error = error_of(file_of(header, 0));
    EXPECT_FALSE(error.empty());
    EXPECT_LT(error.size(), 2000u);
  }
}

}  // namespace
}  // namespace lowbit

// GGUF files that are not what they should be: an Error, never a crash.
#include <gtest/gtest.h>

#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/gguf.h"
#include "support/files.h"
#include "support/gguf_bytes.h"

namespace lowbit {
namespace {

using test::GgufBytes;

// The error's text, or "" if the bytes are accepted. Another exception fails the test.
std::string error_of(const std::string& bytes) {
  try {
    test::parse(parse_gguf, bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void expect_error(const GgufBytes& file, const std::string& part) {
  const std::string error = error_of(file.bytes());
  EXPECT_NE(error.find(part), std::string::npos) << part << " expected, gives: " << error;
}

// Every kind of value, and two tensors with padding between them.
GgufBytes good() {
  GgufBytes file(2, 6);
  file.text("a").u32(4).u32(7);
  file.text("b").u32(8).text("text");
  file.text("c").u32(9).u32(8).u64(2).text("x").text("yy");
  file.text("d").u32(9).u32(5).u64(3).u32(1).u32(2).u32(3);
  file.text("e").u32(7).u8(1);
  file.text("general.alignment").u32(4).u32(64);
  file.tensor("t", {32, 3}, 2, 0).tensor("u", {5}, 0, 64);
  return file.pad(64).data(64).data(20);
}

TEST(BadGguf, TheGoodFileIsAccepted) { EXPECT_EQ(error_of(good().bytes()), ""); }

TEST(BadGguf, TruncationAtEveryByteIsAnError) {
  const std::string bytes = good().bytes();
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_NE(error_of(bytes.substr(0, size)), "") << size;
  }
}

TEST(BadGguf, EveryByteChangedIsAnErrorOrStillAFile) {
  const std::string bytes = good().bytes();
  for (size_t at = 0; at < bytes.size() - 84; ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string bad = bytes;
      bad[at] = static_cast<char>(value);
      error_of(bad);
    }
  }
}

TEST(BadGguf, EveryFieldAtItsLimits) {
  const GgufBytes file = good();
  for (const auto& [offset, size] : file.fields()) {
    for (const uint64_t value :
         {uint64_t{0}, uint64_t{1}, uint64_t{1} << 31, (uint64_t{1} << 31) - 1, uint64_t{1} << 32,
          uint64_t{1} << 63, (uint64_t{1} << 63) - 1, UINT64_MAX, UINT64_MAX - 31}) {
      std::string bad = file.bytes();
      std::memcpy(bad.data() + offset, &value, size);
      error_of(bad);
    }
  }
}

TEST(BadGguf, CountsThatTheFileCannotHold) {
  for (const uint64_t count : {uint64_t{1}, uint64_t{1} << 31, uint64_t{1} << 63, UINT64_MAX}) {
    expect_error(GgufBytes(count, 0), "cannot be in this file");
    expect_error(GgufBytes(0, count), "cannot be in this file");
  }
  for (const uint64_t count : {uint64_t{5}, uint64_t{15'000'000}}) {
    expect_error(GgufBytes(0, 1).text("k").u32(9).u32(10).u64(count).data(32),
                 "more than the file can hold");
    expect_error(GgufBytes(0, 1).text("k").u32(9).u32(8).u64(count).data(32),
                 "more than the file can hold");
  }
  expect_error(GgufBytes(0, 1).text("k").u32(9).u32(0).u64(UINT64_MAX).data(32), "the limit is");
}

TEST(BadGguf, StringsThatTheFileCannotHold) {
  for (const uint64_t length : {uint64_t{40}, uint64_t{1} << 32, uint64_t{1} << 63, UINT64_MAX}) {
    EXPECT_NE(error_of(GgufBytes(0, 1).u64(length).data(32).bytes()), "") << length;
    EXPECT_NE(error_of(GgufBytes(0, 1).text("k").u32(8).u64(length).data(32).bytes()), "");
    EXPECT_NE(error_of(GgufBytes(1, 0).u64(length).data(48).bytes()), "") << length;
  }
  expect_error(GgufBytes(0, 1).text(std::string(65'536, 'k')).u32(0).u8(1), "the limit is 65535");
  expect_error(GgufBytes(1, 0).tensor(std::string(64, 'n'), {1}, 0, 0).pad().data(4),
               "the limit is 63");
}

TEST(BadGguf, VersionsAndByteOrders) {
  EXPECT_EQ(error_of(GgufBytes(0, 0, 2).bytes()), "");
  expect_error(GgufBytes(0, 0, 1), "version 1");
  expect_error(GgufBytes(0, 0, 4), "version 4");
  expect_error(GgufBytes(0, 0, 0), "version 0");
  expect_error(GgufBytes(0, 0, 0x03000000), "big-endian");
  EXPECT_NE(error_of("GGML" + std::string(60, '\0')).find("not a GGUF file"), std::string::npos);
}

TEST(BadGguf, ValuesOfImpossibleTypes) {
  expect_error(GgufBytes(0, 1).text("k").u32(13).data(16), "unknown value type");
  expect_error(GgufBytes(0, 1).text("k").u32(UINT32_MAX).data(16), "unknown value type");
  expect_error(GgufBytes(0, 1).text("k").u32(9).u32(9).u64(1).data(16), "array of array");
  expect_error(GgufBytes(0, 1).text("k").u32(9).u32(13).u64(0).data(16), "array of type 13");
  expect_error(GgufBytes(0, 1).text("k").u32(7).u8(2).data(16), "bool of 2");
  expect_error(GgufBytes(0, 1).text("k").u32(9).u32(7).u64(1).u8(9).data(9), "bool of 9");
}

TEST(BadGguf, TwiceTheSameNameIsAnError) {
  expect_error(GgufBytes(0, 2).text("k").u32(0).u8(1).text("k").u32(0).u8(1), "appears twice");
  expect_error(GgufBytes(2, 0).tensor("t", {8}, 0, 0).tensor("t", {8}, 0, 32).pad().data(64),
               "appears twice");
}

TEST(BadGguf, AlignmentMustBeAPowerOfTwo) {
  for (const uint32_t alignment : {0u, 3u, 33u, 0xffffffffu}) {
    expect_error(GgufBytes(0, 1).text("general.alignment").u32(4).u32(alignment), "power of two");
  }
  expect_error(GgufBytes(0, 1).text("general.alignment").u32(10).u64(32), "must be a u32");
  expect_error(GgufBytes(1, 1)
                   .text("general.alignment")
                   .u32(4)
                   .u32(0x80000000u)
                   .tensor("t", {8}, 0, 0)
                   .data(64),
               "begins at");
  EXPECT_EQ(error_of(GgufBytes(1, 1)
                         .text("general.alignment")
                         .u32(4)
                         .u32(1)
                         .tensor("t", {8}, 0, 0)
                         .data(32)
                         .bytes()),
            "");
}

TEST(BadGguf, ShapesThatCannotBe) {
  const auto file = [](const std::vector<uint64_t>& ne, uint32_t type) {
    return GgufBytes(1, 0).tensor("t", ne, type, 0).pad().data(64);
  };
  EXPECT_EQ(error_of(file({16}, 0).bytes()), "");
  expect_error(file({}, 0), "0 dimensions");
  expect_error(file({1, 1, 1, 1, 1}, 0), "5 dimensions");
  expect_error(file({0}, 0), "dimension 0 is 0");
  expect_error(file({4, UINT64_MAX}, 0), "dimension 1 is");
  expect_error(file({33}, 2), "not whole Q4_0 blocks");
  expect_error(file({17}, 0), "truncated");
  expect_error(file({uint64_t{1} << 32, uint64_t{1} << 31}, 0), "overflows");
  expect_error(file({uint64_t{1} << 62, 2}, 24), "overflows");
  expect_error(file({uint64_t{1} << 62, uint64_t{1} << 62, 16}, 2), "overflows");
  expect_error(file({uint64_t{1} << 63}, 24), "dimension 0 is");
  expect_error(file({(uint64_t{1} << 63) - 32}, 2), "truncated");
}

TEST(BadGguf, TypesThatAreNotThere) {
  for (const uint32_t type : {4u, 5u, 31u, 33u, 36u, 1000u, UINT32_MAX}) {
    expect_error(GgufBytes(1, 0).tensor("t", {32}, type, 0).pad().data(64), "unknown");
  }
}

TEST(BadGguf, OffsetsMustBeTheRunningSum) {
  const auto file = [](uint64_t first, uint64_t second) {
    return GgufBytes(2, 0).tensor("t", {5}, 0, first).tensor("u", {5}, 0, second).pad().data(64);
  };
  EXPECT_EQ(error_of(file(0, 32).bytes()), "");
  for (const uint64_t offset : {uint64_t{1}, uint64_t{32}, uint64_t{1} << 63, UINT64_MAX - 31}) {
    expect_error(file(offset, 32), "begins at");
  }
  for (const uint64_t offset : {uint64_t{0}, uint64_t{20}, uint64_t{64}, UINT64_MAX - 31}) {
    expect_error(file(0, offset), "begins at");
  }
}

TEST(BadGguf, NamesWithControlCharactersAreRefused) {
  expect_error(GgufBytes(1, 0).tensor(std::string("t\0u", 3), {8}, 0, 0).pad().data(32), "control");
  expect_error(GgufBytes(1, 0).tensor("\x1b[2J", {8}, 0, 0).pad().data(32), "control");
}

}  // namespace
}  // namespace lowbit

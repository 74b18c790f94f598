#include "lowbit/base/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"

namespace lowbit {
namespace {

ErrorKind kind_of(const std::function<std::string()>& work) {
  try {
    run_in_child("test", work);
  } catch (const Error& error) {
    return error.kind();
  }
  ADD_FAILURE() << "no error";
  return ErrorKind::kIo;
}

TEST(ChildProcess, ReturnsWhatTheWorkReturns) {
  const pid_t here = getpid();
  EXPECT_EQ(run_in_child("test", [&] { return std::string(getpid() == here ? "same" : "other"); }),
            "other");
  EXPECT_EQ(run_in_child("test", [] { return std::string(); }), "");
  const std::string large(5'000'000, 'x');
  EXPECT_EQ(run_in_child("test", [&] { return large; }), large);
}

TEST(ChildProcess, PassesErrorsOn) {
  try {
    run_in_child("test", []() -> std::string { fail(ErrorKind::kCorruptFile, "bad bytes"); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorruptFile);
    EXPECT_STREQ(error.what(), "bad bytes");
  }
  EXPECT_EQ(kind_of([]() -> std::string { throw std::bad_alloc(); }), ErrorKind::kOutOfMemory);
  EXPECT_EQ(kind_of([]() -> std::string { throw std::runtime_error("x"); }), ErrorKind::kIo);
}

TEST(ChildProcess, SaysThatItWasKilled) {
  EXPECT_EQ(kind_of([]() -> std::string {
              raise(SIGKILL);
              return "";
            }),
            ErrorKind::kOutOfMemory);
  EXPECT_EQ(kind_of([]() -> std::string {
              raise(SIGINT);
              return "";
            }),
            ErrorKind::kIo);
  EXPECT_EQ(kind_of([]() -> std::string { _exit(0); }), ErrorKind::kIo);
}

TEST(ChildProcess, RefusesAResultWithoutEnd) {
  EXPECT_EQ(kind_of([] { return std::string(limits::kChildResultBytes + 10, 'x'); }),
            ErrorKind::kIo);
}

}  // namespace
}  // namespace lowbit

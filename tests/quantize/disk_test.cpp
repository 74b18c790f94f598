// Disks that are full, read-only or not ours: a clear error, no half checkpoint, nothing lost.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "lowbit/base/check.h"
#include "lowbit/quantize/pipeline.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

constexpr int kNotAllowed = 77;  // what the test needs, this user may not do

class Disk : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_folder(model(), test::tiny_folder_config());
    options_.group_size = 32;
    options_.threads = 1;
    options_.commit_seconds = 0;
    fs::create_directories(disk());
  }

  std::string model() const { return folder_ / "model"; }
  std::string disk() const { return folder_ / "disk"; }
  std::string out() const { return disk() + "/out"; }

  std::string error_of_quantize() const {
    try {
      quantize_checkpoint(model(), out(), options_);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  // In a process of its own: mounts and users must not reach the other tests.
  int in_child(const std::function<int()>& body) const {
    const pid_t child = fork();
    if (child == 0) {
      int code = 2;
      try {
        code = body();
      } catch (...) {
      }
      _exit(code);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  // A file system of `kib` KiB at disk() that this process alone sees.
  bool mount_disk(int kib) const {
    if (unshare(CLONE_NEWNS) != 0) return false;
    if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
    return mount("tmpfs", disk().c_str(), "tmpfs", 0, size(kib).c_str()) == 0;
  }
  bool remount_disk(unsigned long flags, int kib) const {
    return mount("none", disk().c_str(), "tmpfs", MS_REMOUNT | flags, size(kib).c_str()) == 0;
  }
  static std::string size(int kib) { return concat("size=", kib, "k"); }

  test::TemporaryFolder folder_;
  QuantizeOptions options_;
};

// Exit codes of children name the expectation that failed.
int expect_error(const std::string& error, const char* what, const char* advice, int code) {
  if (error.find(what) != std::string::npos && error.find(advice) != std::string::npos) return 0;
  fprintf(stderr, "expected \"%s\" and \"%s\", got: %s\n", what, advice, error.c_str());
  return code;
}

TEST_F(Disk, FullStopsWithAnErrorAndTheWorkGoesOnWhenThereIsSpace) {
  quantize_checkpoint(model(), folder_ / "expected", options_);
  const auto expected = test::snapshot(folder_ / "expected");
  const int code = in_child([&] {
    if (!mount_disk(8)) return kNotAllowed;
    int kib = 8;
    int failures = 0;
    std::string error;
    // Ever a little more space, so that every file in turn is the one that does not fit.
    while (!(error = error_of_quantize()).empty()) {
      if (fs::exists(out())) return 10;
      if (expect_error(error, "No space left on device", "free some space", 11) != 0) return 11;
      if (++failures > 1000 || !remount_disk(0, kib += 8)) return 12;
    }
    if (failures < 5) return 13;
    return test::snapshot(out()) == expected && !fs::exists(out() + ".partial") ? 0 : 14;
  });
  if (code == kNotAllowed) GTEST_SKIP() << "this user may not mount";
  EXPECT_EQ(code, 0);
}

TEST_F(Disk, ReadOnlyIsSaidBeforeAnyWork) {
  const int code = in_child([&] {
    if (!mount_disk(64) || !remount_disk(MS_RDONLY, 64)) return kNotAllowed;
    return expect_error(error_of_quantize(), "Read-only file system", "may write to", 10);
  });
  if (code == kNotAllowed) GTEST_SKIP() << "this user may not mount";
  EXPECT_EQ(code, 0);
}

TEST_F(Disk, AFolderOfAnotherUserIsSaidBeforeAnyWork) {
  chmod(disk().c_str(), 0555);
  const int code = in_child([&] {
    if (geteuid() == 0 && seteuid(65534) != 0) return kNotAllowed;
    return expect_error(error_of_quantize(), "Permission denied", "may write to", 10);
  });
  chmod(disk().c_str(), 0755);
  if (code == kNotAllowed) GTEST_SKIP() << "this user may not change to another";
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace lowbit

#include "lowbit/base/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "lowbit/base/check.h"

namespace lowbit {
namespace {

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("lowbit_file_test_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(FileTest, MapsWhatWasWritten) {
  write_file_atomic(folder_ / "a", "hello");
  const MappedFile file(folder_ / "a");
  EXPECT_EQ(std::string(file.bytes().begin(), file.bytes().end()), "hello");
  EXPECT_FALSE(fs::exists(folder_ / "a.tmp"));
}

TEST_F(FileTest, SurvivesTruncationOfAMappedFile) {
  write_file_atomic(folder_ / "a", std::string(1 << 20, 'x'));
  const MappedFile file(folder_ / "a");
  EXPECT_NO_THROW(file.check());
  fs::resize_file(folder_ / "a", 4096);
  EXPECT_EQ(file.data()[100], 'x');
  EXPECT_EQ(file.data()[500'000], 0);  // would be SIGBUS
  EXPECT_THROW(file.check(), Error);
}

TEST_F(FileTest, AnEmptyFileMapsToNothing) {
  write_file_atomic(folder_ / "a", "");
  EXPECT_EQ(MappedFile(folder_ / "a").size(), 0u);
}

TEST_F(FileTest, RefusesFoldersAndMissingFiles) {
  EXPECT_THROW(MappedFile file(folder_), Error);
  EXPECT_THROW(MappedFile file(folder_ / "missing"), Error);
  EXPECT_THROW(read_file(folder_, 100), Error);
}

TEST_F(FileTest, ReadStopsAtTheCap) {
  write_file_atomic(folder_ / "a", std::string(1000, 'x'));
  EXPECT_EQ(read_file(folder_ / "a", 1000).size(), 1000u);
  EXPECT_THROW(read_file(folder_ / "a", 999), Error);
}

TEST_F(FileTest, AppendGoesOnAtTheEnd) {
  write_file_atomic(folder_ / "a", "one");
  FileWriter writer(folder_ / "a", FileWriter::Mode::kAppend);
  EXPECT_EQ(writer.offset(), 3u);
  writer.write("two");
  writer.close();
  EXPECT_EQ(read_file(folder_ / "a", 100), "onetwo");
}

TEST_F(FileTest, AFailedWriteNamesTheFile) {
  try {
    write_file_atomic("/dev/full/x", "hello");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("/dev/full/x"), std::string::npos);
  }
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "needs /dev/full";
  FileWriter full("/dev/full");
  EXPECT_THROW(full.write("hello"), Error);
}

}  // namespace
}  // namespace lowbit

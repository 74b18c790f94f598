// kill -9 at any moment, then the same command again: the bytes of an undisturbed run.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include "lowbit/base/check.h"
#include "lowbit/quantize/fault.h"
#include "lowbit/quantize/journal.h"
#include "lowbit/quantize/pipeline.h"
#include "support/quantize_runs.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

class Resume : public testing::Test {
 protected:
  void SetUp() override {
    Json config = test::tiny_folder_config();
    config["num_hidden_layers"] = 1;
    config["hidden_size"] = 64;
    config["intermediate_size"] = 64;
    config["num_attention_heads"] = 2;
    test::write_tiny_folder(model(), config);
    options_.group_size = 32;
    options_.threads = 1;
    options_.commit_seconds = 0;
    options_.shard_bytes = 20'000;
  }
  void TearDown() override { fault_hook = nullptr; }

  std::string model() const { return folder_ / "model"; }
  std::string out() const { return folder_ / "out"; }

  bool run_killed(int points, const QuantizeOptions& options) {
    return test::run_killed(points, model(), out(), options);
  }

  int count_points(const QuantizeOptions& options) {
    return test::count_points(model(), out(), options);
  }

  std::string error_of(const QuantizeOptions& options) const {
    return test::quantize_error(model(), out(), options);
  }

  // Kills at every stride-th point, runs again, compares.
  void expect_same_bytes(const QuantizeOptions& options, int stride) {
    const int points = count_points(options);
    const auto expected = test::snapshot(out());
    ASSERT_GT(points, 20);
    for (int point = 0; point < points; point += (point > points - 12 ? 1 : stride)) {
      SCOPED_TRACE(point);
      fs::remove_all(out());
      fs::remove_all(out() + ".partial");
      if (options.force) test::write_text(out() + "/old", "old");
      EXPECT_FALSE(run_killed(point, options));
      // Either the old state, or nothing, or the whole new one: never a part.
      if (fs::exists(out()) && !fs::exists(out() + "/old")) {
        EXPECT_EQ(test::snapshot(out()), expected);
      }
      const bool cleaned = fs::exists(out()) && !fs::exists(out() + "/old") &&
                           !fs::exists(out() + ".partial/journal");
      if (!cleaned) quantize_checkpoint(model(), out(), options);
      EXPECT_EQ(test::snapshot(out()), expected);
      EXPECT_TRUE(cleaned || !fs::exists(out() + ".partial"));
    }
  }

  test::TemporaryFolder folder_;
  QuantizeOptions options_;
};

TEST_F(Resume, GivesTheSameBytesWhereverItWasKilled) { expect_same_bytes(options_, 4); }

TEST_F(Resume, GivesTheSameBytesWhenPartsAreMadeDurableTogether) {
  options_.commit_seconds = 1000;
  expect_same_bytes(options_, 11);
}

TEST_F(Resume, GivesTheSameGgufFile) {
  options_.format = "gguf:q8_0";
  expect_same_bytes(options_, 5);
}

TEST_F(Resume, ReplacesTheOldOutputOnlyAtTheEnd) {
  options_.force = true;
  expect_same_bytes(options_, 9);
}

TEST_F(Resume, SurvivesBeingKilledAgainAndAgain) {
  const int points = count_points(options_);
  const auto expected = test::snapshot(out());
  fs::remove_all(out());
  int kills = 0;
  // Ever later: the assembly at the end starts anew each time.
  while (!run_killed(points / 6 * (kills + 1), options_)) ++kills;
  EXPECT_GE(kills, 3);
  EXPECT_EQ(test::snapshot(out()), expected);
}

TEST_F(Resume, UsesWhatIsFinished) {
  const int points = count_points(options_);
  fs::remove_all(out());
  run_killed(points / 2, options_);
  EXPECT_TRUE(quantize_checkpoint(model(), out(), options_).resumed);
}

TEST_F(Resume, MakesADamagedPartAgain) {
  const int points = count_points(options_);
  const auto expected = test::snapshot(out());
  fs::remove_all(out());
  run_killed(points / 2, options_);
  const fs::path part = out() + ".partial/embedding.part";
  std::string bytes = read_file(part, 1 << 20);
  bytes[100] ^= 1;
  FileWriter(part).write(bytes);
  quantize_checkpoint(model(), out(), options_);
  EXPECT_EQ(test::snapshot(out()), expected);
}

TEST_F(Resume, RefusesOtherOptionsAndNamesThem) {
  const int points = count_points(options_);
  fs::remove_all(out());
  run_killed(points / 2, options_);
  const auto partial = test::snapshot(out() + ".partial");
  for (int change = 0; change < 5; ++change) {
    QuantizeOptions other = options_;
    const char* name[] = {"bits", "group_size", "symmetric", "format", "skip"};
    if (change == 0) other.bits = 3;
    if (change == 1) other.group_size = -1;
    if (change == 2) other.symmetric = false;
    if (change == 3) other.format = "compressed-tensors";
    if (change == 4) other.skip = {"lm_head", "down_proj"};
    EXPECT_NE(error_of(other).find(name[change]), std::string::npos) << error_of(other);
  }
  QuantizeOptions other = options_;
  other.bits = 3;
  other.force = true;
  quantize_checkpoint(model(), out(), other);
  const auto forced = test::snapshot(out());
  fs::remove_all(out());
  other.force = false;
  quantize_checkpoint(model(), out(), other);
  EXPECT_EQ(test::snapshot(out()), forced);
}

TEST_F(Resume, NoticesAChangedInput) {
  const int points = count_points(options_);
  fs::remove_all(out());
  run_killed(points / 2, options_);
  std::string bytes = read_file(model() + "/model.safetensors", 1 << 24);
  bytes[bytes.size() - 1] ^= 1;
  FileWriter(model() + "/model.safetensors").write(bytes);
  EXPECT_NE(error_of(options_).find("model.safetensors"), std::string::npos);
}

TEST_F(Resume, RefusesToWriteBesideAnotherRun) {
  const int points = count_points(options_);
  fs::remove_all(out());
  run_killed(points / 2, options_);
  const int lock = open((out() + ".partial/lock").c_str(), O_RDWR);
  ASSERT_EQ(flock(lock, LOCK_EX | LOCK_NB), 0);
  EXPECT_NE(error_of(options_).find("another run (process"), std::string::npos);
  close(lock);
  EXPECT_EQ(error_of(options_), "");
}

TEST(Journal, KeepsWholeLinesAndDropsTheRest) {
  test::TemporaryFolder folder;
  const std::string path = folder / "journal";
  {
    Journal journal(path);
    journal.append({Json{{"a", 1}}});
    journal.append({Json{{"b", "two"}}});
  }
  const std::string text = read_file(path, 1 << 20);
  const size_t first = text.find('\n') + 1;
  for (size_t length = 0; length <= text.size(); ++length) {
    FileWriter(path).write(text.substr(0, length));
    Journal journal(path);
    EXPECT_EQ(journal.records().size(), (length >= first) + (length == text.size())) << length;
    journal.append({Json{{"c", 3}}});
    EXPECT_EQ(Journal(path).records().back(), Json({{"c", 3}}));
  }
  std::string damaged = text;
  damaged[70] ^= 1;
  FileWriter(path).write(damaged);
  EXPECT_TRUE(Journal(path).records().empty());
}

}  // namespace
}  // namespace lowbit

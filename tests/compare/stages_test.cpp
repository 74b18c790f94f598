#include "lowbit/compare/stages.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "support/files.h"

namespace lowbit {
namespace {

Json conditions(int64_t context) { return {{"text", "abc"}, {"eval", {{"context", context}}}}; }

TEST(Stages, KeepResultsFromRunToRun) {
  const test::TemporaryFolder folder;
  {
    Stages stages(folder / "work");
    EXPECT_EQ(stages.find("rtn", "quality", conditions(512)), nullptr);
    stages.add("rtn", "quality", conditions(512), {{"perplexity", 21.5}});
    stages.add("hqq", "quality", conditions(512), {{"perplexity", 20.5}});
  }
  const Stages stages(folder / "work");
  const Json* found = stages.find("rtn", "quality", conditions(512));
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->at("perplexity"), 21.5);
  EXPECT_EQ(stages.find("rtn", "speed", conditions(512)), nullptr);
}

TEST(Stages, OtherConditionsAreNoticedAndSaid) {
  const test::TemporaryFolder folder;
  Stages stages(folder / "work");
  EXPECT_EQ(stages.changes("rtn", "quality", conditions(512)), "");
  stages.add("rtn", "quality", conditions(512), 1);
  EXPECT_EQ(stages.find("rtn", "quality", conditions(1024)), nullptr);
  EXPECT_EQ(stages.changes("rtn", "quality", conditions(1024)), "eval.context: 512, now 1024");
  EXPECT_EQ(stages.changes("rtn", "quality", conditions(512)), "");
  // The last result counts.
  stages.add("rtn", "quality", conditions(1024), 2);
  EXPECT_EQ(stages.find("rtn", "quality", conditions(512)), nullptr);
  EXPECT_EQ(*stages.find("rtn", "quality", conditions(1024)), 2);
}

TEST(Stages, WhatACrashLeftOfALineIsDropped) {
  const test::TemporaryFolder folder;
  {
    Stages stages(folder / "work");
    stages.add("a", "speed", conditions(1), 1);
    stages.add("b", "speed", conditions(1), 2);
  }
  const std::string journal = folder / "work/journal";
  fs::resize_file(journal, fs::file_size(journal) - 5);
  Stages stages(folder / "work");
  EXPECT_NE(stages.find("a", "speed", conditions(1)), nullptr);
  EXPECT_EQ(stages.find("b", "speed", conditions(1)), nullptr);
  stages.add("b", "speed", conditions(1), 3);
  EXPECT_EQ(*stages.find("b", "speed", conditions(1)), 3);
}

TEST(Stages, TwoRunsDoNotShareAFolder) {
  const test::TemporaryFolder folder;
  const Stages stages(folder / "work");
  EXPECT_THROW(Stages(folder / "work"), Error);
}

TEST(Stages, WithoutAFolderNothingIsKept) {
  Stages stages("");
  stages.add("a", "speed", conditions(1), 1);
  EXPECT_NE(stages.find("a", "speed", conditions(1)), nullptr);
}

}  // namespace
}  // namespace lowbit

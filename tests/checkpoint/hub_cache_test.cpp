#include "lowbit/checkpoint/hub_cache.h"

#include <gtest/gtest.h>

#include <map>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "support/environment.h"
#include "support/files.h"

namespace lowbit {
namespace {

using test::Environment;
using test::TemporaryFolder;
using test::write_text;

using Variables = std::map<std::string, std::string>;

std::string resolve_error(const std::string& model) {
  try {
    return "found " + resolve_model(model);
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(HubCache, FindsTheSnapshotOfMain) {
  const TemporaryFolder folder;
  for (const auto& [variable, value, below] :
       std::vector<std::tuple<std::string, std::string, std::string>>{
           {"HF_HUB_CACHE", "a", ""},
           {"HUGGINGFACE_HUB_CACHE", "b", ""},
           {"HF_HOME", "c", "/hub"},
           {"XDG_CACHE_HOME", "d", "/huggingface/hub"},
           {"HOME", "e", "/.cache/huggingface/hub"}}) {
    const std::string repository = folder / (value + below) + "/models--org--name";
    write_text(repository + "/refs/main", "abc123\n");
    write_text(repository + "/snapshots/abc123/config.json", "{}");
    write_text(repository + "/snapshots/def456/config.json", "{}");
    const Environment environment(Variables{{variable, folder / value}});
    EXPECT_EQ(resolve_model("org/name"), repository + "/snapshots/abc123");
  }
}

TEST(HubCache, ErrorsSayWhereItLooked) {
  const TemporaryFolder folder;
  const Environment environment(Variables{{"HF_HUB_CACHE", folder / "x"}, {"HOME", folder / "h"}});
  const std::string error = resolve_error("org/name");
  EXPECT_NE(error.find(folder / "x/models--org--name"), std::string::npos) << error;
  EXPECT_NE(error.find(folder / "h/.cache/huggingface/hub/models--org--name"), std::string::npos);
  EXPECT_NE(error.find("lowbit pull org/name"), std::string::npos);
}

TEST(HubCache, IncompleteOrHostileSnapshotsAreErrors) {
  const TemporaryFolder folder;
  const Environment environment(Variables{{"HF_HUB_CACHE", folder.path()}});
  const std::string repository = folder / "models--name";
  fs::create_directories(repository);
  EXPECT_NE(resolve_error("name").find("no complete snapshot"), std::string::npos);
  write_text(repository + "/refs/main", "../../../etc");
  EXPECT_NE(resolve_error("name").find("does not hold the name of a commit"), std::string::npos);
}

TEST(HubCache, NamesThatAreNotNames) {
  for (const char* name : {"", "a/b/c", "/a", "a/", "../x", "./x", "a b", "a/..", "x\ny"}) {
    EXPECT_FALSE(is_hub_name(name)) << name;
    EXPECT_THROW(resolve_model(name), Error) << name;
  }
  EXPECT_TRUE(is_hub_name("gpt2"));
  EXPECT_TRUE(is_hub_name("HuggingFaceTB/SmolLM2-135M_Instruct.v1"));
  EXPECT_THROW(resolve_model(std::string(10'000, 'a')), Error);
}

TEST(ResolveModel, AFolderWithOneGgufFileStandsForIt) {
  const TemporaryFolder folder;
  write_text(folder / "one.gguf", "GGUF");
  EXPECT_EQ(resolve_model(folder.path()), folder / "one.gguf");
  EXPECT_EQ(resolve_model(folder / "one.gguf"), folder / "one.gguf");
  write_text(folder / "two.gguf", "GGUF");
  EXPECT_NE(resolve_error(folder.path()).find("2 GGUF models"), std::string::npos);
  write_text(folder / "config.json", "{}");
  EXPECT_EQ(resolve_model(folder.path()), folder.path());
}

TEST(ResolveModel, OtherFilesAreRefusedWithAdvice) {
  const TemporaryFolder folder;
  write_text(folder / "model.safetensors", "x");
  write_text(folder / "model.txt", "x");
  write_text(folder / "empty", "");
  for (const char* name : {"model.safetensors", "model.txt", "empty"}) {
    EXPECT_THROW(open_checkpoint(folder / name), Error) << name;
  }
}

}  // namespace
}  // namespace lowbit

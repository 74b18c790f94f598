#include "lowbit/hub/settings.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "support/environment.h"
#include "support/files.h"

namespace lowbit::hub {
namespace {

using test::Environment;
using test::TemporaryFolder;
using test::write_text;

TEST(HubSettings, DefaultsAreThoseOfHuggingFace) {
  const TemporaryFolder home;
  const Environment environment({{"HOME", home.path()}});
  const HubSettings settings = settings_from_environment();
  EXPECT_EQ(settings.endpoint, "https://huggingface.co");
  EXPECT_EQ(settings.cache, home / ".cache/huggingface/hub");
  EXPECT_EQ(settings.token, "");
  EXPECT_FALSE(settings.offline);
}

TEST(HubSettings, VariablesAndTheTokensFileAreObeyed) {
  const TemporaryFolder home;
  write_text(home / "token", "hf_file\n");
  write_text(home / "other", "  hf_other ");
  {
    const Environment environment({{"HF_HOME", home.path()},
                                   {"HF_ENDPOINT", "https://mirror.example/hf/"},
                                   {"HF_HUB_OFFLINE", "yes"}});
    const HubSettings settings = settings_from_environment();
    EXPECT_EQ(settings.endpoint, "https://mirror.example/hf");
    EXPECT_EQ(settings.token, "hf_file");
    EXPECT_EQ(settings.cache, home / "hub");
    EXPECT_TRUE(settings.offline);
  }
  {
    const Environment environment({{"HF_HOME", home.path()}, {"HF_TOKEN_PATH", home / "other"}});
    EXPECT_EQ(settings_from_environment().token, "hf_other");
  }
  const Environment environment({{"HF_HOME", home.path()}, {"HF_TOKEN", "hf_variable"}});
  EXPECT_EQ(settings_from_environment().token, "hf_variable");
}

TEST(HubSettings, WhatCannotBeMeantSoIsRefused) {
  const TemporaryFolder home;
  {
    const Environment environment({{"HOME", home.path()}, {"HF_ENDPOINT", "ftp://x"}});
    EXPECT_THROW(settings_from_environment(), Error);
  }
  {
    const Environment environment({{"HOME", home.path()}, {"HF_TOKEN", "two words"}});
    EXPECT_THROW(settings_from_environment(), Error);
  }
  const Environment environment({});
  EXPECT_THROW(settings_from_environment(), Error);
}

}  // namespace
}  // namespace lowbit::hub

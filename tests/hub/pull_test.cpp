#include "lowbit/hub/pull.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "hub/fake_hub.h"
#include "lowbit/base/check.h"
#include "lowbit/base/file.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "support/environment.h"
#include "support/files.h"
#include "support/tiny_folder.h"

namespace lowbit::hub {
namespace {

using test::FakeHub;
using test::HubReply;
using test::HubRequest;
using test::TemporaryFolder;

constexpr size_t kWeights = 300'000;

std::string noise(size_t size, unsigned seed) {
  std::string bytes;
  for (size_t i = 0; i < size; ++i) {
    seed = seed * 1664525 + 1013904223;
    bytes += static_cast<char>(seed >> 24);
  }
  return bytes;
}

class PullTest : public testing::Test {
 protected:
  PullTest() {
    hub_.files["config.json"] = {"{\"model_type\": \"llama\"}"};
    hub_.files["model.safetensors"] = {noise(kWeights, 1), true};
    hub_.files["tokenizer.json"] = {"{}"};
    hub_.files["onnx/model.onnx"] = {"onnx", true};
    options_.hub = {hub_.url(), "", cache_.path(), false};
    options_.repository = "org/name";
    options_.retry.first_pause = 0.01;
    options_.retry.longest_pause = 0.05;
    options_.retry.times = {5, 2};
  }

  std::string repository() const { return cache_ / "models--org--name"; }
  std::string text(const std::string& name) const {
    return read_file(repository() + "/snapshots/" + hub_.commit() + "/" + name, 1 << 30);
  }
  std::string partial() const {
    return repository() + "/blobs/" + hub_.files.at("model.safetensors").etag() + ".incomplete";
  }
  std::string error() const {
    try {
      pull(options_);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  void expect_error(const std::string& part) const {
    const std::string message = error();
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  void expect_whole() const {
    EXPECT_EQ(text("config.json"), hub_.files.at("config.json").bytes);
    EXPECT_TRUE(text("model.safetensors") == hub_.files.at("model.safetensors").bytes);
  }
  // Does it to the first `times` answers that send the weights.
  void on_weights(int times, std::function<void(const HubRequest&, HubReply&)> change) {
    hub_.fault = [this, times, change](const HubRequest& request, HubReply& reply) {
      if (request.target.find("model.safetensors") == std::string::npos) return;
      if (faults_.fetch_add(1) < times) change(request, reply);
    };
  }

  // Faults may outlive a test's body, if that ends early: they use only what outlives the hub.
  std::atomic<int> faults_{0};
  std::atomic<bool> stop_{false};
  TemporaryFolder cache_;
  FakeHub hub_;
  PullOptions options_;
};

TEST_F(PullTest, FillsTheCacheInTheLayoutOfHuggingFace) {
  const PullResult result = pull(options_);
  EXPECT_EQ(result.commit, hub_.commit());
  EXPECT_EQ(result.files, 3) << "without onnx/";
  EXPECT_EQ(result.fetched, result.bytes);
  EXPECT_EQ(result.folder, repository() + "/snapshots/" + hub_.commit());
  EXPECT_EQ(read_file(repository() + "/refs/main", 100), hub_.commit());
  expect_whole();
  for (const auto& [name, file] : hub_.files) {
    if (name.find("onnx") != std::string::npos) continue;
    EXPECT_EQ(fs::read_symlink(result.folder + "/" + name).string(), "../../blobs/" + file.etag());
    EXPECT_EQ(read_file(repository() + "/blobs/" + file.etag(), 1 << 30), file.bytes);
  }
}

TEST_F(PullTest, WhatIsThereIsNotFetchedAgain) {
  pull(options_);
  const size_t requests = hub_.seen("/resolve/").size();
  EXPECT_EQ(pull(options_).fetched, 0);
  EXPECT_EQ(hub_.seen("/resolve/").size(), requests);
  options_.force = true;
  EXPECT_EQ(pull(options_).fetched, pull(options_).bytes);
}

TEST_F(PullTest, OtherCommandsFindWhatItFetched) {
  const TemporaryFolder model;
  test::write_tiny_folder(model / "m", test::tiny_folder_config());
  hub_.files.clear();
  for (const auto& [name, bytes] : test::snapshot(model / "m")) {
    hub_.files[name] = {bytes, name == "model.safetensors"};
  }
  const test::Environment environment({{"HF_HUB_CACHE", cache_.path()}});
  EXPECT_THROW(open_checkpoint("org/name"), Error);
  const PullResult result = pull(options_);
  EXPECT_EQ(resolve_model("org/name"), result.folder);
  EXPECT_EQ(open_checkpoint("org/name")->tensors().size(),
            open_checkpoint(model / "m")->tensors().size());
}

TEST_F(PullTest, AConnectionThatIsCutIsTakenUpWhereItBroke) {
  on_weights(2, [](const HubRequest&, HubReply& reply) { reply.cut_after = 100'000; });
  const PullResult result = pull(options_);
  expect_whole();
  EXPECT_EQ(result.fetched, result.bytes) << "no byte twice";
  const std::vector<HubRequest> requests = hub_.seen("model.safetensors");
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].field("range"), "");
  EXPECT_EQ(requests[1].field("range"), "bytes=100000-");
  EXPECT_EQ(requests[2].field("range"), "bytes=200000-");
}

TEST_F(PullTest, ALaterPullGoesOnWhereOneFailed) {
  options_.retry.attempts = 2;
  on_weights(1, [](const HubRequest&, HubReply& reply) { reply.cut_after = 70'000; });
  const auto cut = hub_.fault.get();
  hub_.fault = [this, cut](const HubRequest& request, HubReply& reply) {
    cut(request, reply);
    if (faults_ > 1 && request.target.find("model.safetensors") != std::string::npos) {
      reply = {503, {}, "", 0, 0};
    }
  };
  expect_error("status 503");
  EXPECT_EQ(fs::file_size(partial()), 70'000u);
  EXPECT_FALSE(fs::exists(repository() + "/refs/main")) << "nothing half is shown";
  EXPECT_FALSE(fs::exists(repository() + "/snapshots"));
  hub_.fault = nullptr;
  const PullResult result = pull(options_);
  expect_whole();
  EXPECT_EQ(hub_.seen("model.safetensors").back().field("range"), "bytes=70000-");
  EXPECT_LE(result.fetched, result.bytes - 70'000);
  EXPECT_FALSE(fs::exists(partial()));
}

TEST_F(PullTest, AServerThatKnowsNoRangesStartsOver) {
  options_.retry.attempts = 3;
  on_weights(1, [](const HubRequest&, HubReply& reply) { reply.cut_after = 70'000; });
  const auto cut = hub_.fault.get();
  hub_.fault = [this, cut](const HubRequest& request, HubReply& reply) {
    cut(request, reply);
    if (reply.status != 206) return;
    reply = {200, {}, hub_.files.at("model.safetensors").bytes};
  };
  pull(options_);
  expect_whole();
}

TEST_F(PullTest, AnAnswerWithAnotherPartIsNotAppended) {
  on_weights(2, [](const HubRequest& request, HubReply& reply) {
    if (request.field("range").empty()) {
      reply.cut_after = 70'000;
    } else {
      reply.fields["Content-Range"] = "bytes 5-299999/300000";
    }
  });
  pull(options_);
  expect_whole();
}

TEST_F(PullTest, APartThatIsLongerThanTheFileIsThrownAway) {
  test::write_text(partial(), std::string(kWeights + 1, 'x'));
  pull(options_);
  expect_whole();
}

TEST_F(PullTest, APartOfOtherContentIsFoundOutAndReplaced) {
  test::write_text(partial(), std::string(100'000, 'x'));
  pull(options_);
  expect_whole();
}

TEST_F(PullTest, WrongBytesAreFetchedOnceMore) {
  on_weights(1, [](const HubRequest&, HubReply& reply) { reply.body[1000] ^= 1; });
  const PullResult result = pull(options_);
  expect_whole();
  EXPECT_EQ(result.fetched, result.bytes + static_cast<int64_t>(kWeights));
}

TEST_F(PullTest, BytesThatStayWrongAreAnError) {
  for (const char* name : {"model.safetensors", "config.json"}) {  // SHA-256 and git's SHA-1
    hub_.fault = [name](const HubRequest& request, HubReply& reply) {
      if (request.target.ends_with(name)) reply.body[3] ^= 1;
    };
    expect_error("has not the checksum");
    EXPECT_FALSE(fs::exists(repository() + "/blobs/" + hub_.files.at(name).etag()));
    fs::remove_all(repository());
  }
}

TEST_F(PullTest, MoreBytesThanNamedAreAnError) {
  on_weights(100, [](const HubRequest&, HubReply& reply) { reply.body += "x"; });
  expect_error("more than the 300000 bytes");
  EXPECT_LE(fs::file_size(partial()), kWeights);
}

TEST_F(PullTest, ItWaitsAsLongAsTheHubAsks) {
  on_weights(1, [](const HubRequest&, HubReply& reply) { reply = {429, {{"Retry-After", "1"}}}; });
  const auto start = std::chrono::steady_clock::now();
  pull(options_);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(950));
  expect_whole();
}

TEST_F(PullTest, ItDoesNotWaitForHours) {
  hub_.fault = [](const HubRequest&, HubReply& reply) { reply = {429, {{"Retry-After", "7200"}}}; };
  expect_error("asks to wait 7200 s");
}

TEST_F(PullTest, FaultsThatPassAreTriedAgain) {
  hub_.fault = [this](const HubRequest&, HubReply& reply) {
    const int count = faults_++;
    if (count % 2 == 0) reply = {count % 4 == 0 ? 503 : 502, {}};
  };
  pull(options_);
  expect_whole();
}

TEST_F(PullTest, FaultsThatStayAreErrorsThatSayWhatToDo) {
  hub_.fault = [](const HubRequest&, HubReply& reply) { reply = {503, {}}; };
  expect_error("status 503");
  EXPECT_EQ(hub_.seen().size(), static_cast<size_t>(options_.retry.attempts));
  hub_.fault = nullptr;
  options_.repository = "org/other";
  expect_error("org/other at main: " + hub_.url() +
               " has no such thing (\"Repository not found\")");
  options_.repository = "org/name";
  options_.hub.endpoint = "http://127.0.0.1:1";
  expect_error("run again to go on");
}

TEST_F(PullTest, ATransferThatStallsIsGivenUpAndResumed) {
  options_.retry.times.stall_seconds = 1;
  on_weights(1, [](const HubRequest&, HubReply& reply) {
    reply.cut_after = 100'000;
    reply.stall_seconds = 30;
  });
  const PullResult result = pull(options_);
  expect_whole();
  EXPECT_EQ(result.fetched, result.bytes);
}

TEST_F(PullTest, TheTokenGoesToTheHubAndNowhereElse) {
  FakeHub cdn;
  cdn.files = hub_.files;
  hub_.cdn = cdn.url();
  hub_.token = "hf_secret";
  expect_error("set HF_TOKEN");
  options_.hub.token = "hf_wrong";
  expect_error("conditions accepted");
  options_.hub.token = "hf_secret";
  // Cut once, so that resuming goes through the redirect too.
  cdn.fault = [this](const HubRequest&, HubReply& reply) {
    if (faults_++ == 0) reply.cut_after = 50'000;
  };
  pull(options_);
  expect_whole();
  EXPECT_EQ(cdn.seen().size(), 2u);
  for (const HubRequest& request : cdn.seen()) EXPECT_EQ(request.field("authorization"), "");
  EXPECT_EQ(hub_.seen("model.safetensors").back().field("authorization"), "Bearer hf_secret");
}

TEST_F(PullTest, RedirectsInCirclesOrToOtherSchemesAreRefused) {
  on_weights(100, [this](const HubRequest& request, HubReply& reply) {
    reply = {302, {{"Location", hub_.url() + request.target}}};
  });
  expect_error("more than 10 redirects");
  on_weights(1000, [](const HubRequest&, HubReply& reply) {
    reply = {302, {{"Location", "file:///etc/passwd"}}};
  });
  expect_error("no http or https address");
}

TEST_F(PullTest, NamesThatLeaveTheirFolderAreRefused) {
  for (const char* name : {"../evil", "/etc/evil", "a/../../evil", "a//b", "", ".", "a/.", "a\\b",
                           "a\nb", "..", "./a"}) {
    hub_.files["model.safetensors"].bytes = "x";
    FakeHub hub;
    hub.files = hub_.files;
    hub.files[name] = {"evil"};
    options_.hub.endpoint = hub.url();
    expect_error("refused");
  }
  EXPECT_TRUE(fs::is_empty(cache_.path())) << "nothing is written";
}

TEST_F(PullTest, AFileThatChangesBetweenTwoPullsIsNotMixed) {
  options_.retry.attempts = 1;
  on_weights(100, [](const HubRequest&, HubReply& reply) { reply.cut_after = 70'000; });
  EXPECT_NE(error(), "no error");
  const std::string old_partial = partial();
  hub_.fault = nullptr;
  hub_.files["model.safetensors"].bytes = noise(kWeights, 2);
  options_.retry.attempts = 6;
  const PullResult result = pull(options_);
  expect_whole();
  EXPECT_EQ(hub_.seen("model.safetensors").back().field("range"), "");
  EXPECT_EQ(result.commit, hub_.commit());
  EXPECT_TRUE(fs::exists(old_partial)) << "of a commit that may be asked for again";
}

TEST_F(PullTest, AFileThatChangesWhileItIsFetchedIsAnError) {
  hub_.fault = [this](const HubRequest& request, HubReply& reply) {
    if (request.target.find("model.safetensors") == std::string::npos) return;
    const std::string changed = noise(kWeights, 3);
    if (request.field("range").empty() && faults_++ == 0) {
      reply.cut_after = 70'000;
    } else {
      reply.body = changed.substr(kWeights - reply.body.size());
    }
  };
  expect_error("has not the checksum");
  EXPECT_FALSE(fs::exists(repository() + "/snapshots"));
}

TEST_F(PullTest, OfflineFindsWhatIsThereAndAsksNobody) {
  options_.hub.offline = true;
  expect_error("HF_HUB_OFFLINE");
  options_.hub.offline = false;
  const PullResult online = pull(options_);
  const size_t requests = hub_.seen().size();
  options_.hub.offline = true;
  EXPECT_EQ(pull(options_).folder, online.folder);
  options_.revision = online.commit;
  EXPECT_EQ(pull(options_).folder, online.folder);
  options_.revision = "other";
  expect_error("not in the cache");
  EXPECT_EQ(hub_.seen().size(), requests);
}

TEST_F(PullTest, TwoAtOnceFetchEveryFileOnce) {
  hub_.fault = [](const HubRequest& request, HubReply&) {
    if (request.target.find("/resolve/") != std::string::npos) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  };
  std::atomic<int64_t> fetched{0};
  const auto work = [&] { fetched += pull(options_).fetched; };
  std::thread other(work);
  work();
  other.join();
  expect_whole();
  int64_t bytes = 0;
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
    bytes += static_cast<int64_t>(hub_.files.at(name).bytes.size());
    EXPECT_EQ(hub_.seen(name).size(), 1u) << name;
  }
  EXPECT_EQ(fetched, bytes);
}

TEST_F(PullTest, ADiskThatFillsUpIsAnErrorAndWhatFitsIsKept) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit little = before;
  little.rlim_cur = 100'000;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &little);
  const std::string message = error();
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("cannot write " + partial()), std::string::npos) << message;
  EXPECT_EQ(fs::file_size(partial()), 100'000u);
  pull(options_);
  expect_whole();
  EXPECT_EQ(hub_.seen("model.safetensors").back().field("range"), "bytes=100000-");
}

TEST_F(PullTest, WhatCannotFitIsNotBegun) {
  hub_.fault = [](const HubRequest&, HubReply& reply) {
    reply.body =
        "{\"sha\": \"abc\", \"siblings\": [{\"rfilename\": \"model.safetensors\", \"blobId\": "
        "\"ab\", \"size\": 1152921504606846976}]}";
  };
  expect_error("MiB are missing and");
  EXPECT_TRUE(hub_.seen("/resolve/").empty());
}

TEST_F(PullTest, AnInterruptionKeepsWhatHasCome) {
  options_.stop = [this] { return stop_.load(); };
  on_weights(1, [this](const HubRequest&, HubReply& reply) {
    reply.cut_after = 100'000;
    reply.stall_seconds = 30;
    stop_ = true;
  });
  EXPECT_NE(error(), "no error");
  stop_ = false;
  hub_.fault = nullptr;
  pull(options_);
  expect_whole();
}

TEST_F(PullTest, MirrorsThatListNamesAloneAreAskedForEachFile) {
  FakeHub cdn;
  cdn.files = hub_.files;
  hub_.cdn = cdn.url();
  hub_.bare_list = true;
  hub_.token = options_.hub.token = "hf_secret";
  const PullResult result = pull(options_);
  expect_whole();
  EXPECT_EQ(result.bytes, result.fetched);
  EXPECT_EQ(fs::read_symlink(result.folder + "/model.safetensors").filename().string(),
            hub_.files.at("model.safetensors").etag());
  for (const HubRequest& request : cdn.seen()) EXPECT_EQ(request.method, "GET");
}

TEST_F(PullTest, BranchesWithSlashesAreQuotedAndKept) {
  options_.revision = "refs/pr/1";
  pull(options_);
  EXPECT_EQ(hub_.seen("/revision/refs%2Fpr%2F1?").size(), 1u);
  EXPECT_EQ(read_file(repository() + "/refs/refs/pr/1", 100), hub_.commit());
  for (const char* bad : {"../../x", "/x", "a/../b", "", "a b", "x\r\nHost: y"}) {
    options_.revision = bad;
    expect_error("not the name of a branch");
  }
}

TEST_F(PullTest, ACommitLeavesNoRef) {
  options_.revision = hub_.commit();
  pull(options_);
  expect_whole();
  EXPECT_FALSE(fs::exists(repository() + "/refs"));
}

TEST_F(PullTest, EmptyAndEqualFilesAreStored) {
  hub_.files["a.json"] = {""};
  hub_.files["b.json"] = {"same"};
  hub_.files["c.json"] = {"same"};
  pull(options_);
  EXPECT_EQ(text("a.json"), "");
  EXPECT_EQ(text("b.json") + text("c.json"), "samesame");
  EXPECT_EQ(hub_.seen("b.json").size() + hub_.seen("c.json").size(), 1u);
}

TEST_F(PullTest, ATokenThatIsNoWordIsRefused) {
  options_.hub.token = "hf_x\r\nHost: evil";
  expect_error("not a single word");
  EXPECT_TRUE(hub_.seen().empty());
}

TEST_F(PullTest, ListingsThatAreNoListingsAreErrors) {
  for (const char* body :
       {"", "[]", "{}", "{\"sha\": \"../x\", \"siblings\": []}", "{\"sha\": \"abc\"}",
        "{\"sha\": \"abc\", \"siblings\": [1]}",
        "{\"sha\": \"abc\", \"siblings\": [{\"rfilename\": \"a\", \"size\": -7}]}",
        "{\"sha\": \"abc\", \"siblings\": [{\"rfilename\": \"a\"}, {\"rfilename\": \"a\"}]}",
        "{\"sha\": \"abc\", \"siblings\": [{\"rfilename\": \"a\"}, {\"rfilename\": \"a/b\"}]}",
        "{\"sha\": \"abc\", \"siblings\": [{\"rfilename\": \"a\", \"blobId\": \"../../x\"}]}"}) {
    hub_.fault = [body](const HubRequest&, HubReply& reply) { reply = {200, {}, body}; };
    EXPECT_NE(error(), "no error") << body;
  }
}

}  // namespace
}  // namespace lowbit::hub

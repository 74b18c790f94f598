// A server on this machine that behaves like the Hugging Face hub, and misbehaves when told to.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace lowbit::test {

struct HubFile {
  std::string bytes;
  bool lfs = false;

  std::string etag() const;  // SHA-256 of files in LFS, git's blob id of others
};

struct HubRequest {
  std::string method, target;
  std::map<std::string, std::string> fields;  // names in lower case

  std::string field(const std::string& name) const;
};

struct HubReply {
  int status = 200;
  std::map<std::string, std::string> fields = {};
  std::string body = {};
  size_t cut_after = std::string::npos;  // bytes of the body, then the connection is cut
  double stall_seconds = 0;              // after those bytes, before the rest
};

// May change any answer. Called from several threads, and may be set while they run.
class HubFault {
 public:
  using Function = std::function<void(const HubRequest& request, HubReply& reply)>;

  HubFault& operator=(Function function) {
    const std::lock_guard lock(mutex_);
    function_ = std::move(function);
    return *this;
  }
  Function get() const {
    const std::lock_guard lock(mutex_);
    return function_;
  }

 private:
  mutable std::mutex mutex_;
  Function function_;
};

// One repository, "org/name".
class FakeHub {
 public:
  FakeHub();
  ~FakeHub();
  FakeHub(const FakeHub&) = delete;
  FakeHub& operator=(const FakeHub&) = delete;

  std::string url() const;  // http://127.0.0.1:PORT
  // Requests so far, those whose target contains `part`.
  std::vector<HubRequest> seen(const std::string& part = "") const;

  // To be set before the first request, or from within `fault`.
  std::map<std::string, HubFile> files;
  std::string token;  // wanted if not empty
  std::string cdn;    // where files in LFS are redirected to: url() of another FakeHub; "": none
  bool bare_list = false;  // the listing has names alone, as some mirrors' has
  HubFault fault;

  std::string commit() const;   // of `files` as they are
  std::string listing() const;  // the API's answer

 private:
  HubReply answer(const HubRequest& request) const;
  HubReply resolve(const HubRequest& request, const std::string& name) const;

  struct Server;
  std::unique_ptr<Server> server_;
};

}  // namespace lowbit::test

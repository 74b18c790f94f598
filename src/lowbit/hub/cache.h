// One repository in the cache, in the layout of huggingface_hub, which both programs can fill:
//   models--ORG--NAME/blobs/<etag>              the files, <etag>.incomplete until they are whole
//   models--ORG--NAME/snapshots/<commit>/<name> links to them
//   models--ORG--NAME/refs/<revision>           the commit that a branch or tag stood for
//   .locks/models--ORG--NAME/<etag>.lock        held while a blob is written
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lowbit/base/file.h"
#include "lowbit/hub/listing.h"

namespace lowbit::hub {

class RepositoryCache {
 public:
  // repository: "org/name" or "name". Throws kInvalidArgument if it is neither.
  RepositoryCache(const std::string& cache, const std::string& repository);

  fs::path blob(const std::string& etag) const { return folder_ / "blobs" / etag; }
  fs::path incomplete(const std::string& etag) const;
  fs::path snapshot(const std::string& commit) const { return folder_ / "snapshots" / commit; }

  // The commit that refs/<revision> holds, or `revision` itself if there is such a snapshot; "" if
  // neither.
  std::string find_commit(const std::string& revision) const;

  // The folders that blobs and locks are written to.
  void make_folders() const;
  // Links the files, whose blobs are there, into the snapshot, and only then lets refs/<revision>
  // point to it. Throws kIo.
  void publish(const std::string& commit, const std::string& revision,
               const std::vector<RemoteFile>& files) const;

  // Held until destruction; waits for others. Throws kIo if `stop` says so.
  class Lock {
   public:
    Lock(const RepositoryCache& cache, const std::string& etag, const std::function<bool()>& stop);
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    int fd_ = -1;
  };

 private:
  fs::path folder_, locks_;
};

// A branch, a tag, "refs/pr/1" or a commit: plain names joined by slashes. Throws kInvalidArgument.
void check_revision(const std::string& revision);

}  // namespace lowbit::hub

#include "lowbit/hub/cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/hub_cache.h"
#include "lowbit/checkpoint/paths.h"

namespace lowbit::hub {

namespace {

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  LOWBIT_CHECK_KIND(!error, ErrorKind::kIo, "cannot make the folder ", folder.string(), ": ",
                    error.message(), "; HF_HOME or HF_HUB_CACHE may name another");
}

// link -> blob, relative, so that the cache can be moved as a whole.
void link_blob(const fs::path& blob, const fs::path& link) {
  make_folder(link.parent_path());
  fs::path temporary = link;
  temporary += concat(".", getpid(), ".tmp");
  std::error_code error;
  fs::remove(temporary, error);
  fs::create_symlink(blob.lexically_relative(link.parent_path()), temporary, error);
  // A file system without links gets a second copy.
  if (error) fs::copy_file(blob, temporary, fs::copy_options::overwrite_existing, error);
  if (!error) fs::rename(temporary, link, error);
  LOWBIT_CHECK_KIND(!error, ErrorKind::kIo, "cannot link ", link.string(), ": ", error.message());
}

}  // namespace

void check_revision(const std::string& revision) {
  constexpr size_t kLongest = 255;
  size_t begin = 0;
  bool good = revision.size() <= kLongest;
  while (good) {
    const size_t slash = revision.find('/', begin);
    good = is_plain_name(revision.substr(begin, slash - begin));
    if (slash == std::string::npos) break;
    begin = slash + 1;
  }
  LOWBIT_CHECK(good, "\"", revision.substr(0, kLongest),
               "\" is not the name of a branch, a tag or a commit");
}

RepositoryCache::RepositoryCache(const std::string& cache, const std::string& repository) {
  LOWBIT_CHECK(is_hub_name(repository), "\"", repository, "\" is not ORG/NAME");
  folder_ = fs::path(cache) / hub_folder_name(repository);
  locks_ = fs::path(cache) / ".locks" / hub_folder_name(repository);
}

fs::path RepositoryCache::incomplete(const std::string& etag) const {
  return folder_ / "blobs" / (etag + ".incomplete");
}

std::string RepositoryCache::find_commit(const std::string& revision) const {
  const fs::path ref = folder_ / "refs" / revision;
  if (path_exists(ref) && !is_folder(ref)) {
    const std::string commit = read_ref(ref);
    if (is_plain_name(commit) && is_folder(snapshot(commit))) return commit;
  }
  return is_plain_name(revision) && is_folder(snapshot(revision)) ? revision : "";
}

void RepositoryCache::make_folders() const {
  make_folder(folder_ / "blobs");
  make_folder(locks_);
}

void RepositoryCache::publish(const std::string& commit, const std::string& revision,
                              const std::vector<RemoteFile>& files) const {
  const Lock lock(*this, "refs", {});  // one at a time: all write through the same temporary files
  for (const RemoteFile& file : files) {
    link_blob(blob(file.etag), snapshot(commit) / fs::path(file.name));
  }
  sync_directory(snapshot(commit));
  if (revision == commit) return;
  const fs::path ref = folder_ / "refs" / revision;
  make_folder(ref.parent_path());
  write_file_atomic(ref, commit);
}

RepositoryCache::Lock::Lock(const RepositoryCache& cache, const std::string& etag,
                            const std::function<bool()>& stop) {
  const fs::path path = cache.locks_ / (etag + ".lock");
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  LOWBIT_CHECK_KIND(fd_ >= 0, ErrorKind::kIo, "cannot open ", path.string(), ": ",
                    std::strerror(errno));
  while (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    // A file system that has no locks: the checksum still notices two writers.
    if (errno != EWOULDBLOCK && errno != EINTR) break;
    if (stop && stop()) {
      close(fd_);
      fail(ErrorKind::kIo, "interrupted while another program downloads the same file");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

RepositoryCache::Lock::~Lock() { close(fd_); }

}  // namespace lowbit::hub

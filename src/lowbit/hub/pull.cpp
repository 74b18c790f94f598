#include "lowbit/hub/pull.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/base/progress.h"
#include "lowbit/checkpoint/hub_cache.h"
#include "lowbit/checkpoint/paths.h"
#include "lowbit/hub/blob_download.h"
#include "lowbit/hub/cache.h"

namespace lowbit::hub {

namespace {

// Percent-encodes what is not plain in a URL's path.
std::string quoted(std::string_view text, bool keep_slashes) {
  std::string url;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.' || c == '~' || (c == '/' && keep_slashes);
    if (plain) {
      url += c;
    } else {
      constexpr char kDigits[] = "0123456789ABCDEF";
      const auto byte = static_cast<unsigned char>(c);
      url += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return url;
}

// W/"abc" -> abc
std::string stripped_etag(std::string etag) {
  if (etag.starts_with("W/")) etag.erase(0, 2);
  std::erase(etag, '"');
  return etag;
}

class Pull {
 public:
  explicit Pull(const PullOptions& options)
      : options_(options),
        cache_(options.hub.cache, options.repository),
        client_(options.hub, options.retry, [this] { return stopped(); }) {}

  PullResult run() {
    const Listing listing = fetch_listing();
    commit_ = listing.commit;
    files_ = select_files(listing, options_.selection, options_.repository);
    complete_metadata();
    cache_.make_folders();
    check_room();
    download_all();
    cache_.publish(commit_, options_.revision, files_);
    PullResult result{cache_.snapshot(commit_).string(), commit_};
    result.files = static_cast<int64_t>(files_.size());
    for (const RemoteFile& file : files_) result.bytes += std::max<int64_t>(file.size, 0);
    result.fetched = progress_.fetched;
    return result;
  }

 private:
  bool stopped() const { return failed_ || (options_.stop && options_.stop()); }

  Listing fetch_listing() {
    const std::string url =
        concat(options_.hub.endpoint, "/api/models/", quoted(options_.repository, true),
               "/revision/", quoted(options_.revision, false), "?blobs=true");
    const std::string what = options_.repository + " at " + options_.revision;
    return parse_listing(client_.get_text(url, limits::kHubListingBytes, what), url);
  }

  std::string url_of(const RemoteFile& file) const {
    return concat(options_.hub.endpoint, "/", quoted(options_.repository, true), "/resolve/",
                  quoted(commit_, false), "/", quoted(file.name, true));
  }

  // Mirrors may list names alone; each file's own answer says the rest.
  void complete_metadata() {
    for (RemoteFile& file : files_) {
      if (!file.etag.empty() && file.size >= 0) continue;
      Attempts attempts(client_, file.name);
      HttpAnswer answer = client_.head(url_of(file));
      while (!answer.whole() || answer.status >= 400) {
        attempts.failed(answer);
        answer = client_.head(url_of(file));
      }
      const std::string& linked = answer.field("x-linked-etag");
      file.etag = stripped_etag(linked.empty() ? answer.field("etag") : linked);
      LOWBIT_CHECK_KIND(is_safe_etag(file.etag), ErrorKind::kCorruptFile, file.name, ": ",
                        options_.hub.endpoint, " names no usable ETag (\"", shown(file.etag),
                        "\")");
      const std::string& linked_size = answer.field("x-linked-size");
      const bool redirected = answer.status >= 300;  // its own length is not the file's
      const std::string& size =
          linked_size.empty() && !redirected ? answer.field("content-length") : linked_size;
      int64_t bytes = -1;
      std::from_chars(size.data(), size.data() + size.size(), bytes);
      file.size = std::max<int64_t>(bytes, -1);
    }
  }

  void check_room() const {
    uintmax_t needed = 0;
    for (const RemoteFile& file : files_) {
      std::error_code none;
      const fs::path blob = cache_.blob(file.etag);
      if (path_exists(blob) && !options_.force) continue;
      const uintmax_t kept = fs::file_size(cache_.incomplete(file.etag), none);
      const auto size = static_cast<uintmax_t>(std::max<int64_t>(file.size, 0));
      needed += size - (none ? 0 : std::min(kept, size));
    }
    std::error_code error;
    const fs::space_info space = fs::space(options_.hub.cache, error);
    constexpr uintmax_t kMiB = 1 << 20;
    LOWBIT_CHECK_KIND(error || needed <= space.available, ErrorKind::kIo, options_.hub.cache, ": ",
                      needed / kMiB, " MiB are missing and ", space.available / kMiB,
                      " MiB are free; free some space, or name another folder (HF_HUB_CACHE)");
  }

  // The largest first, each content once.
  std::vector<const RemoteFile*> downloads() const {
    std::vector<const RemoteFile*> order;
    std::set<std::string_view> etags;
    for (const RemoteFile& file : files_) {
      if (etags.insert(file.etag).second) order.push_back(&file);
    }
    std::stable_sort(order.begin(), order.end(),
                     [](const RemoteFile* a, const RemoteFile* b) { return a->size > b->size; });
    return order;
  }

  void download_all() {
    const std::vector<const RemoteFile*> order = downloads();
    const size_t workers =
        std::min(order.size(), static_cast<size_t>(std::max(1, options_.max_workers)));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < workers; ++i) threads.emplace_back([&] { work(order); });
    show_progress(order, workers);
    for (std::thread& thread : threads) thread.join();
    if (thrown_) std::rethrow_exception(thrown_);
  }

  void work(const std::vector<const RemoteFile*>& order) {
    try {
      HubClient client(options_.hub, options_.retry, [this] { return stopped(); });
      for (size_t i = next_++; i < order.size() && !failed_; i = next_++) {
        download_blob(client, cache_, *order[i], url_of(*order[i]), options_.force, progress_);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failed_.exchange(true)) thrown_ = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    ++finished_;
    finished_changed_.notify_all();
  }

  void show_progress(const std::vector<const RemoteFile*>& order, size_t workers) {
    constexpr int64_t kMiB = 1 << 20;
    int64_t total = 0;
    for (const RemoteFile* file : order) total += std::max<int64_t>(file->size, 0);
    Progress line("pull " + options_.repository, total / kMiB, "MiB");
    std::unique_lock lock(mutex_);
    while (!finished_changed_.wait_for(lock, std::chrono::milliseconds(200),
                                       [&] { return finished_ == workers; })) {
      line.update(progress_.done / kMiB);
    }
  }

  const PullOptions& options_;
  const RepositoryCache cache_;
  std::atomic<bool> failed_{false};  // before client_, which asks for it
  HubClient client_;
  std::string commit_;
  std::vector<RemoteFile> files_;
  BlobProgress progress_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::condition_variable finished_changed_;
  size_t finished_ = 0;
  std::exception_ptr thrown_;  // the first
};

PullResult find_offline(const PullOptions& options) {
  const RepositoryCache cache(options.hub.cache, options.repository);
  const std::string commit = cache.find_commit(options.revision);
  LOWBIT_CHECK_KIND(!commit.empty(), ErrorKind::kIo, options.repository, " at ", options.revision,
                    " is not in the cache ", options.hub.cache,
                    ", and HF_HUB_OFFLINE forbids to fetch it");
  PullResult result{cache.snapshot(commit).string(), commit};
  return result;
}

}  // namespace

PullResult pull(const PullOptions& options) {
  LOWBIT_CHECK(is_hub_name(options.repository), "\"", options.repository.substr(0, 200),
               "\" is not ORG/NAME");
  check_revision(options.revision);
  check_token(options.hub.token);
  return options.hub.offline ? find_offline(options) : Pull(options).run();
}

}  // namespace lowbit::hub

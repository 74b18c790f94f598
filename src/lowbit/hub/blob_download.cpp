#include "lowbit/hub/blob_download.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/paths.h"
#include "lowbit/hub/digest.h"

namespace lowbit::hub {

namespace {

constexpr int kWrongContents = 2;  // that many times, then there is no point in going on

// "bytes 100-199/200": where the piece begins, and the whole's size if it is said.
struct ContentRange {
  int64_t begin = -1;
  int64_t total = -1;
};

std::optional<ContentRange> parse_content_range(std::string_view text) {
  constexpr std::string_view kUnit = "bytes ";
  if (!text.starts_with(kUnit)) return {};
  text.remove_prefix(kUnit.size());
  ContentRange range;
  const char* end = text.data() + text.size();
  const auto begin = std::from_chars(text.data(), end, range.begin);
  if (begin.ec != std::errc() || begin.ptr == end || *begin.ptr != '-') return {};
  const size_t slash = text.find('/');
  if (slash == text.npos) return {};
  const auto total = std::from_chars(text.data() + slash + 1, end, range.total);
  if (total.ec != std::errc() && text.substr(slash + 1) != "*") return {};
  return range;
}

// Thrown where an answer does not go on where the partial file ends.
struct AnotherPart {};

class Download {
 public:
  Download(HubClient& client, const RepositoryCache& cache, const RemoteFile& file,
           const std::string& url, BlobProgress& progress)
      : client_(client),
        cache_(cache),
        file_(file),
        url_(url),
        progress_(progress),
        partial_(cache.incomplete(file.etag)),
        attempts_(client, file.name),
        digest_(file.etag, file.size) {}

  void run() {
    open_partial();
    for (int wrong = 0;;) {
      fetch_rest();
      if (finished()) return;
      LOWBIT_CHECK_KIND(++wrong < kWrongContents, ErrorKind::kCorruptFile, file_.name,
                        ": what the hub sends has not the checksum that it names (", file_.etag,
                        "); run again later");
      restart();
    }
  }

 private:
  void open_partial() {
    writer_ = std::make_unique<FileWriter>(partial_, FileWriter::Mode::kAppend);
    if (file_.size < 0 || writer_->offset() > static_cast<uint64_t>(file_.size)) return restart();
    if (writer_->offset() == 0) return;
    const MappedFile kept(partial_);
    digest_.update(kept.bytes());
    kept.check();
    count(static_cast<int64_t>(kept.size()));
  }

  void restart() {
    count(-static_cast<int64_t>(received_));
    digest_ = Digest(file_.etag, file_.size);
    writer_ = std::make_unique<FileWriter>(partial_, FileWriter::Mode::kTruncate);
  }

  void count(int64_t bytes) {
    received_ += bytes;
    progress_.done += bytes;
  }

  // Returns with as many bytes as the file should have.
  void fetch_rest() {
    while (file_.size < 0 || received_ < file_.size) {
      const int64_t before = received_;
      HttpAnswer answer;
      try {
        answer = ask();
      } catch (const AnotherPart&) {
        answer.fault = "the server sends another part of the file than was asked for";
      }
      const bool content = answer.status == 200 || answer.status == 206;
      if (content && answer.whole() && (file_.size < 0 || received_ >= file_.size)) return;
      if (received_ > before) attempts_.progressed();
      if (answer.status == 416 && received_ > 0) {  // not the file that was begun
        restart();
      } else {
        attempts_.failed(answer);
      }
    }
  }

  HttpAnswer ask() {
    std::vector<std::string> fields = {"Accept-Encoding: identity"};
    if (received_ > 0) fields.push_back(concat("Range: bytes=", received_, "-"));
    begun_ = false;
    return client_.get(
        url_, std::move(fields),
        [this](const HttpAnswer& head, std::string_view bytes) { take(head, bytes); });
  }

  void take(const HttpAnswer& head, std::string_view bytes) {
    if (!std::exchange(begun_, true)) check_part(head);
    LOWBIT_CHECK_KIND(
        file_.size < 0 || received_ + static_cast<int64_t>(bytes.size()) <= file_.size,
        ErrorKind::kCorruptFile, file_.name, ": the server sends more than the ", file_.size,
        " bytes that the hub names");
    writer_->write(bytes);
    digest_.update({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
    count(static_cast<int64_t>(bytes.size()));
    progress_.fetched += static_cast<int64_t>(bytes.size());
  }

  // What comes must begin where the partial file ends.
  void check_part(const HttpAnswer& head) {
    if (head.status == 200) {
      if (received_ > 0) restart();
      return;
    }
    const auto range = parse_content_range(head.field("content-range"));
    if (range && range->begin == received_ &&
        (range->total < 0 || file_.size < 0 || range->total == file_.size)) {
      return;
    }
    restart();
    throw AnotherPart();
  }

  // Gives the blob its name, if it is what it should be.
  bool finished() {
    if (!digest_.matches()) return false;
    writer_->close();
    std::error_code error;
    // Where locks do nothing, another program may have written into it too.
    const uintmax_t size = fs::file_size(partial_, error);
    LOWBIT_CHECK_KIND(!error && size == static_cast<uintmax_t>(received_), ErrorKind::kIo,
                      partial_.string(), ": changed while it was written; run again");
    fs::rename(partial_, cache_.blob(file_.etag), error);
    LOWBIT_CHECK_KIND(!error, ErrorKind::kIo, "cannot rename ", partial_.string(), ": ",
                      error.message());
    sync_directory(partial_.parent_path());
    return true;
  }

  HubClient& client_;
  const RepositoryCache& cache_;
  const RemoteFile& file_;
  const std::string& url_;
  BlobProgress& progress_;
  const fs::path partial_;
  Attempts attempts_;
  Digest digest_;
  std::unique_ptr<FileWriter> writer_;
  int64_t received_ = 0;  // in the partial file
  bool begun_ = false;    // the first bytes of an answer have come
};

}  // namespace

void download_blob(HubClient& client, const RepositoryCache& cache, const RemoteFile& file,
                   const std::string& url, bool force, BlobProgress& progress) {
  const RepositoryCache::Lock lock(cache, file.etag, [&] { return client.stopped(); });
  const fs::path blob = cache.blob(file.etag);
  std::error_code error;
  const bool there = path_exists(blob) && (file.size < 0 || fs::file_size(blob, error) ==
                                                                static_cast<uintmax_t>(file.size));
  if (there && !force) {
    progress.done += std::max<int64_t>(file.size, 0);
    return;
  }
  Download(client, cache, file, url, progress).run();
}

}  // namespace lowbit::hub

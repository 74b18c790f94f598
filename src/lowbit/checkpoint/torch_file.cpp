#include "lowbit/checkpoint/torch_file.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/torch_pickle.h"

namespace lowbit {

namespace {

// Sizes of the fixed parts of a ZIP's records, and the longest comment at its end.
constexpr uint64_t kEndBytes = 22, kEntryBytes = 46, kLocalBytes = 30, kCommentBytes = 65535;

// Little-endian fields of a ZIP archive, each checked against its end.
class Zip {
 public:
  Zip(std::span<const uint8_t> file, const std::string& origin) : file_(file), origin_(origin) {
    uint64_t at = find_end();
    const uint64_t count = number(at + 10, 2);
    at = number(at + 16, 4);
    LOWBIT_CHECK_KIND(count != 0xffff && at != 0xffffffff, ErrorKind::kUnsupported, origin_,
                      ": a ZIP64 archive; lowbit reads those below 4 GiB");
    for (uint64_t i = 0; i < count; ++i) at = read_entry(at);
  }

  // Names with the archive's folder ("Llama-2/data/0") to their bytes.
  const std::map<std::string, std::span<const uint8_t>>& entries() const { return entries_; }

 private:
  void expect(bool condition, const char* problem) const {
    LOWBIT_CHECK_KIND(condition, ErrorKind::kCorruptFile, origin_, ": not a file of torch.save() (",
                      problem, ")");
  }
  std::span<const uint8_t> part(uint64_t begin, uint64_t size) const {
    expect(begin <= file_.size() && size <= file_.size() - begin, "it ends too early");
    return file_.subspan(begin, size);
  }
  uint64_t number(uint64_t begin, uint64_t size) const {
    uint64_t value = 0;
    const auto bytes = part(begin, size);
    for (size_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    return value;
  }

  uint64_t find_end() const {
    expect(file_.size() >= kEndBytes, "too short");
    const uint64_t last = file_.size() - kEndBytes;
    for (uint64_t back = 0; back <= std::min(last, kCommentBytes); ++back) {
      if (number(last - back, 4) == 0x06054b50) return last - back;
    }
    expect(false, "no ZIP directory");
    return 0;
  }

  uint64_t read_entry(uint64_t at) {
    expect(number(at, 4) == 0x02014b50, "bad ZIP directory");
    const uint64_t flags = number(at + 8, 2), method = number(at + 10, 2);
    const uint64_t size = number(at + 24, 4), name_size = number(at + 28, 2);
    const auto name = part(at + kEntryBytes, name_size);
    LOWBIT_CHECK_KIND(method == 0 && (flags & 1) == 0 && number(at + 20, 4) == size,
                      ErrorKind::kUnsupported, origin_, ": a compressed or encrypted ZIP archive; ",
                      "torch.save() does not write those");
    const uint64_t local = number(at + 42, 4);
    expect(number(local, 4) == 0x04034b50, "bad ZIP entry");
    const uint64_t data = local + kLocalBytes + number(local + 26, 2) + number(local + 28, 2);
    const bool fresh =
        entries_.emplace(std::string(name.begin(), name.end()), part(data, size)).second;
    expect(fresh, "two ZIP entries of one name");
    return at + kEntryBytes + name_size + number(at + 30, 2) + number(at + 32, 2);
  }

  std::span<const uint8_t> file_;
  const std::string& origin_;
  std::map<std::string, std::span<const uint8_t>> entries_;
};

}  // namespace

std::map<std::string, StoredTensor> parse_torch_file(std::span<const uint8_t> file,
                                                     std::shared_ptr<const void> owner,
                                                     const std::string& origin) {
  const Zip zip(file, origin);
  const std::string suffix = "/data.pkl";
  std::string folder;
  for (const auto& [name, bytes] : zip.entries()) {
    if (name.ends_with(suffix)) folder = name.substr(0, name.size() - suffix.size());
  }
  const auto pickle = zip.entries().find(folder + suffix);
  LOWBIT_CHECK_KIND(pickle != zip.entries().end(), ErrorKind::kCorruptFile, origin,
                    ": not a file of torch.save() (no data.pkl)");
  std::map<std::string, StoredTensor> tensors;
  for (const auto& [name, tensor] : parse_torch_pickle(pickle->second, origin)) {
    const auto storage = zip.entries().find(folder + "/data/" + tensor.storage);
    uint64_t count = 1;
    for (const int64_t extent : tensor.shape) count *= static_cast<uint64_t>(extent);
    const uint64_t width = tensor.dtype == "F32" ? 4 : 2;
    const uint64_t offset = static_cast<uint64_t>(tensor.offset) * width;
    LOWBIT_CHECK_KIND(storage != zip.entries().end() && offset <= storage->second.size() &&
                          count * width <= storage->second.size() - offset,
                      ErrorKind::kCorruptFile, origin, ": the data of ", name, " are missing");
    tensors[name] = {name, tensor.dtype, tensor.shape,
                     Bytes::view(owner, storage->second.data() + offset, count * width)};
  }
  return tensors;
}

std::map<std::string, StoredTensor> read_torch_file(const fs::path& path) {
  const auto file = std::make_shared<MappedFile>(path);
  auto tensors = parse_torch_file(file->bytes(), file, path.string());
  file->check();
  return tensors;
}

}  // namespace lowbit

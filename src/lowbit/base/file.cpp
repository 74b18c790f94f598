#include "lowbit/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>

#include "lowbit/base/check.h"

namespace lowbit {

namespace {

// The SIGBUS handler may only touch lock-free globals, so maps are listed in a fixed table. A read
// past the end of a truncated file gets a page of zeros and marks its map as damaged.
struct GuardedMap {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> damaged{false};
};
constexpr int kGuardedMaps = 4096;
GuardedMap guarded_maps[kGuardedMaps];
struct sigaction previous_action;

void on_sigbus(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (GuardedMap& map : guarded_maps) {
    if (address < map.begin.load() || address >= map.end.load()) continue;
    const auto page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    void* page = reinterpret_cast<void*>(address / page_size * page_size);
    if (mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page) {
      map.damaged.store(true);
      return;
    }
  }
  // Not one of ours: put the previous action back; returning raises the signal again.
  sigaction(SIGBUS, &previous_action, nullptr);
  (void)signal;
  (void)context;
}

int guard(const uint8_t* data, uint64_t size) {
  static std::once_flag installed;
  std::call_once(installed, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous_action);
  });
  const auto begin = reinterpret_cast<uintptr_t>(data);
  for (int slot = 0; slot < kGuardedMaps; ++slot) {
    uintptr_t free_slot = 0;
    if (guarded_maps[slot].begin.compare_exchange_strong(free_slot, begin)) {
      guarded_maps[slot].damaged.store(false);
      guarded_maps[slot].end.store(begin + size);
      return slot;
    }
  }
  return -1;
}

[[noreturn]] void fail_io(const char* what, const fs::path& path) {
  const int error = errno;
  const char* advice = error == ENOSPC || error == EDQUOT  ? "; free some space and run again"
                       : error == EROFS || error == EACCES ? "; choose a folder you may write to"
                                                           : "";
  fail(ErrorKind::kIo, "cannot ", what, " ", path.string(), ": ", std::strerror(error), advice);
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail_io("open", path);
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    fail(ErrorKind::kIo, path.string(), " is not a regular file");
  }
  size_ = static_cast<uint64_t>(info.st_size);
  if (size_ > 0) {
    void* data = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
      const int error = errno;
      close(fd);
      errno = error;
      fail_io("map", path);
    }
    data_ = static_cast<uint8_t*>(data);
    guard_ = guard(data_, size_);
  }
  close(fd);
}

MappedFile::~MappedFile() {
  if (guard_ >= 0) {
    guarded_maps[guard_].end.store(0);
    guarded_maps[guard_].begin.store(0);
  }
  if (data_ != nullptr) munmap(data_, size_);
}

void MappedFile::check() const {
  LOWBIT_CHECK_KIND(guard_ < 0 || !guarded_maps[guard_].damaged.load(), ErrorKind::kIo,
                    path_.string(), " became shorter while it was being read");
}

void MappedFile::release(uint64_t offset, uint64_t length) const {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t begin = (offset + page - 1) / page * page;
  const uint64_t end = (offset + length) / page * page;
  if (data_ != nullptr && end > begin) madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

std::string read_file(const fs::path& path, size_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_io("open", path);
  std::string bytes;
  char buffer[1 << 16];
  while (true) {
    const ssize_t count = read(fd, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      close(fd);
      errno = error;
      fail_io("read", path);
    }
    if (count == 0) break;
    bytes.append(buffer, static_cast<size_t>(count));
    if (bytes.size() > max_bytes) {
      close(fd);
      fail(ErrorKind::kCorruptFile, path.string(), " is larger than ", max_bytes,
           " bytes, the limit for a file of its kind");
    }
  }
  close(fd);
  return bytes;
}

FileWriter::FileWriter(const fs::path& path, Mode mode) : path_(path) {
  const int flags = mode == Mode::kTruncate ? O_TRUNC : O_APPEND;
  fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
  if (fd_ < 0) fail_io("create", path);
  if (mode == Mode::kAppend) {
    const off_t end = lseek(fd_, 0, SEEK_END);
    if (end < 0) fail_io("seek in", path);
    offset_ = static_cast<uint64_t>(end);
  }
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void FileWriter::write(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_io("write", path_);
    offset_ += static_cast<uint64_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void FileWriter::write(std::string_view text) {
  write(std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

void FileWriter::sync() {
  if (fsync(fd_) != 0) fail_io("sync", path_);
}

void FileWriter::close() {
  if (fd_ < 0) return;
  sync();
  const int result = ::close(fd_);
  fd_ = -1;
  if (result != 0) fail_io("close", path_);
}

void write_file_atomic(const fs::path& path, std::string_view bytes) {
  fs::path temporary = path;
  temporary += ".tmp";
  try {
    FileWriter writer(temporary);
    writer.write(bytes);
    writer.close();
  } catch (const Error&) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) fail_io("rename to", path);
  sync_directory(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void sync_directory(const fs::path& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_io("open folder", folder);
  const int result = fsync(fd);
  ::close(fd);
  // Some filesystems cannot sync a folder and say EINVAL; there is nothing better to do on them.
  if (result != 0 && errno != EINVAL) fail_io("sync folder", folder);
}

}  // namespace lowbit

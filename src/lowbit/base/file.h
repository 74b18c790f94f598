// Files: memory maps that survive truncation, whole-file reads with a cap, durable writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace lowbit {

namespace fs = std::filesystem;

// A read-only map of a whole file. If the file is truncated underneath, reads of the lost pages
// give zeros instead of SIGBUS, and check() throws from then on.
class MappedFile {
 public:
  // Throws kIo if the file cannot be opened or is not a regular file.
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const fs::path& path() const { return path_; }
  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

  // Throws kIo if some read of this map hit a page that the file no longer has.
  void check() const;
  // Tells the kernel that [offset, offset + length) is not needed again soon, so that it stops
  // counting against this process.
  void release(uint64_t offset, uint64_t length) const;

 private:
  fs::path path_;
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
  int guard_ = -1;  // slot in the table that the SIGBUS handler reads
};

// The bytes of a whole file. Throws kIo if it cannot be read, kCorruptFile if it is larger than
// max_bytes.
std::string read_file(const fs::path& path, size_t max_bytes);

// Appends bytes to a new file and makes them durable. Every failure (a full disk included) throws
// kIo with the path. Not thread-safe.
class FileWriter {
 public:
  enum class Mode { kTruncate, kAppend };
  explicit FileWriter(const fs::path& path, Mode mode = Mode::kTruncate);
  ~FileWriter();  // closes without fsync; call close() for durability
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(std::span<const uint8_t> bytes);
  void write(std::string_view text);
  uint64_t offset() const { return offset_; }
  void sync();   // fsync
  void close();  // fsync and close

 private:
  fs::path path_;
  int fd_ = -1;
  uint64_t offset_ = 0;
};

// Writes through a temporary file in the same folder, fsyncs, renames, fsyncs the folder.
void write_file_atomic(const fs::path& path, std::string_view bytes);
// Makes renames and new files in the folder durable.
void sync_directory(const fs::path& folder);

}  // namespace lowbit

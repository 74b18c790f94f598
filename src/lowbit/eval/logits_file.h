// Log-probabilities of a reference model over the windows of a text, in the file that llama.cpp's
// --kl-divergence-base writes and reads: "_logits_", the tokens of all windows, and for each scored
// position the codes of 16 bits of all words, with a scale and the least log-probability held
// (16 nats under the highest). Only protocol llama.cpp, whose scored positions are the second half.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowbit/base/file.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/eval/windows.h"

namespace lowbit {

class LogitsFileWriter {
 public:
  // Throws kInvalidArgument if the windows are not of protocol llama.cpp, kIo.
  LogitsFileWriter(const fs::path& path, const Windows& windows, int64_t vocab_size);
  // The next scored positions, in order: logits [rows][vocab_size].
  void write(const float* logits, int64_t rows, ThreadPool& pool);
  // A file that was not closed is too short, which LogitsFile notices.
  void close();

 private:
  FileWriter writer_;
  fs::path path_;
  int64_t vocab_size_;
  int64_t rows_left_;
  std::vector<uint16_t> codes_;
};

class LogitsFile {
 public:
  // Throws kIo, kCorruptFile if sizes or tokens are impossible.
  explicit LogitsFile(const fs::path& path);

  const Windows& windows() const { return windows_; }
  int64_t vocab_size() const { return vocab_size_; }
  // Log-probabilities [vocab_size] of the position-th scored position of a window.
  void read(int64_t window, int64_t position, std::span<float> log_p) const;

 private:
  MappedFile file_;
  Windows windows_;
  int64_t vocab_size_ = 0;
  uint64_t rows_offset_ = 0;
};

// Whether a path is such a file.
bool is_logits_file(const fs::path& path);

}  // namespace lowbit

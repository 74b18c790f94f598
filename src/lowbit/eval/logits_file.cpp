#include "lowbit/eval/logits_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/eval/log_softmax.h"

namespace lowbit {

namespace {

constexpr std::string_view kMagic = "_logits_";
constexpr float kRangeNats = 16;
constexpr float kHighestCode = 65535;
constexpr uint64_t kHeaderBytes = 8 + 3 * 4;

// 16-bit words of one row: scale and least log-probability as fp32, the codes, padding to even.
int64_t row_words(int64_t vocab) { return 4 + (vocab + 1) / 2 * 2; }

void encode(std::span<const float> logits, uint16_t* row) {
  const auto [least, top] = std::minmax_element(logits.begin(), logits.end());
  const float low = std::max(*least, *top - kRangeNats);
  const float scale = (*top - low) / kHighestCode;
  const auto least_log_p = static_cast<float>(low - log_sum_exp(logits));
  std::memcpy(row, &scale, sizeof(scale));
  std::memcpy(row + 2, &least_log_p, sizeof(least_log_p));
  const float inverse = scale > 0 ? 1 / scale : 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float code = logits[i] > low ? std::nearbyint(inverse * (logits[i] - low)) : 0.f;
    row[4 + i] = static_cast<uint16_t>(std::min(code, kHighestCode));
  }
  if (logits.size() % 2 != 0) row[4 + logits.size()] = 0;
}

}  // namespace

LogitsFileWriter::LogitsFileWriter(const fs::path& path, const Windows& windows, int64_t vocab_size)
    : writer_(path),
      path_(path),
      vocab_size_(vocab_size),
      rows_left_(windows.count * windows.scored()) {
  LOWBIT_CHECK(windows.first_scored == windows.context / 2, "only protocol llama.cpp scores what ",
               "a file of logits can hold");
  const int32_t header[] = {static_cast<int32_t>(windows.context), static_cast<int32_t>(vocab_size),
                            static_cast<int32_t>(windows.count)};
  writer_.write(kMagic);
  writer_.write({reinterpret_cast<const uint8_t*>(header), sizeof(header)});
  writer_.write(
      {reinterpret_cast<const uint8_t*>(windows.ids.data()), windows.ids.size() * sizeof(int32_t)});
}

void LogitsFileWriter::write(const float* logits, int64_t rows, ThreadPool& pool) {
  const int64_t words = row_words(vocab_size_);
  codes_.resize(static_cast<size_t>(rows * words));
  pool.parallel_for(rows, [&](int64_t row, int) {
    encode({logits + row * vocab_size_, static_cast<size_t>(vocab_size_)},
           codes_.data() + row * words);
  });
  writer_.write({reinterpret_cast<const uint8_t*>(codes_.data()), codes_.size() * 2});
  rows_left_ -= rows;
}

void LogitsFileWriter::close() {
  LOWBIT_CHECK(rows_left_ == 0, rows_left_, " rows of ", path_.string(), " were not written");
  writer_.close();
}

LogitsFile::LogitsFile(const fs::path& path) : file_(path) {
  const auto corrupt = [&](const auto&... what) {
    fail(ErrorKind::kCorruptFile, path.string(), ": ", what...);
  };
  if (file_.size() < kHeaderBytes || std::memcmp(file_.data(), kMagic.data(), kMagic.size()) != 0) {
    corrupt("no file of logits: it does not begin with \"_logits_\"");
  }
  int32_t header[3];
  std::memcpy(header, file_.data() + kMagic.size(), sizeof(header));
  const int64_t context = header[0], count = header[2];
  vocab_size_ = header[1];
  if (context < 4 || context > limits::kContext || vocab_size_ < 1 ||
      vocab_size_ > limits::kVocabSize || count < 1) {
    corrupt("impossible sizes: ", count, " windows of ", context, " tokens of ", vocab_size_,
            " words");
  }
  windows_.context = context;
  windows_.count = count;
  windows_.first_scored = context / 2;
  const uint64_t tokens = static_cast<uint64_t>(context) * static_cast<uint64_t>(count);
  if (tokens > file_.size() / 4) corrupt("its ", count, " windows do not fit in it");
  const uint64_t rows = static_cast<uint64_t>(windows_.scored()) * static_cast<uint64_t>(count);
  rows_offset_ = kHeaderBytes + 4 * tokens;
  const uint64_t expected = rows_offset_ + rows * 2 * static_cast<uint64_t>(row_words(vocab_size_));
  if (file_.size() != expected) {
    corrupt(file_.size(), " bytes; ", count, " windows need ", expected,
            "; the run that wrote it did not finish");
  }
  windows_.ids.resize(tokens);
  std::memcpy(windows_.ids.data(), file_.data() + kHeaderBytes, 4 * tokens);
  for (const int32_t id : windows_.ids) {
    if (id < 0 || id >= vocab_size_) corrupt("token ", id, " is outside the vocabulary");
  }
}

void LogitsFile::read(int64_t window, int64_t position, std::span<float> log_p) const {
  const auto words = static_cast<uint64_t>(row_words(vocab_size_));
  const auto row = static_cast<uint64_t>(window * windows_.scored() + position);
  const uint8_t* bytes = file_.data() + rows_offset_ + row * words * 2;
  float scale = 0, least = 0;
  std::memcpy(&scale, bytes, sizeof(scale));
  std::memcpy(&least, bytes + 4, sizeof(least));
  for (size_t i = 0; i < log_p.size(); ++i) {
    uint16_t code = 0;
    std::memcpy(&code, bytes + 8 + 2 * i, sizeof(code));
    log_p[i] = scale * static_cast<float>(code) + least;
  }
}

bool is_logits_file(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  char magic[kMagic.size()];
  return stream.read(magic, sizeof(magic)) && std::string_view(magic, sizeof(magic)) == kMagic;
}

}  // namespace lowbit

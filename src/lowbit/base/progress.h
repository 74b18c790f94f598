// The one progress line, on stderr: redrawn on a terminal, a plain line every ten seconds
// otherwise. Silent until two seconds have passed, so short work prints nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace lowbit {

class Progress {
 public:
  // `total` in units of `unit` ("layers", "tokens", "MiB").
  Progress(std::string label, int64_t total, std::string unit);
  ~Progress();  // clears the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Work done so far and, optionally, a short note such as "ppl 21.6".
  void update(int64_t done, const std::string& note = "");
  // Nothing is shown by any Progress while false (--no-progress, --json on a pipe, tests).
  static void enable(bool on);

 private:
  std::string label_;
  std::string unit_;
  int64_t total_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_drawn_;
  bool terminal_;
  bool drawn_ = false;
};

}  // namespace lowbit

#include "lowbit/base/progress.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>

namespace lowbit {

namespace {

std::atomic<bool> enabled{true};

std::string duration(double seconds) {
  char text[32];
  const int whole = static_cast<int>(seconds + 0.5);
  if (whole >= 3600) {
    std::snprintf(text, sizeof(text), "%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
  } else {
    std::snprintf(text, sizeof(text), "%d:%02d", whole / 60, whole % 60);
  }
  return text;
}

}  // namespace

Progress::Progress(std::string label, int64_t total, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      start_(std::chrono::steady_clock::now()),
      last_drawn_(start_),
      terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (drawn_ && terminal_) std::fprintf(stderr, "\r\033[K");
}

void Progress::enable(bool on) { enabled = on; }

void Progress::update(int64_t done, const std::string& note) {
  if (!enabled) return;
  using std::chrono::duration_cast;
  using std::chrono::milliseconds;
  const auto now = std::chrono::steady_clock::now();
  const double elapsed = duration_cast<milliseconds>(now - start_).count() / 1000.0;
  const auto since = duration_cast<milliseconds>(now - last_drawn_).count();
  if (elapsed < 2.0 || (drawn_ && since < (terminal_ ? 200 : 10'000))) return;
  last_drawn_ = now;
  drawn_ = true;
  const double share = total_ > 0 ? static_cast<double>(done) / static_cast<double>(total_) : 0;
  const std::string left = done > 0 ? duration(elapsed / share - elapsed) : "?";
  std::fprintf(stderr, "%s%s: %lld/%lld %s (%.0f %%), %s left%s%s%s", terminal_ ? "\r" : "",
               label_.c_str(), static_cast<long long>(done), static_cast<long long>(total_),
               unit_.c_str(), share * 100, left.c_str(), note.empty() ? "" : ", ", note.c_str(),
               terminal_ ? "\033[K" : "\n");
  std::fflush(stderr);
}

}  // namespace lowbit

// Trace: what every thread did when, for Chrome's about:tracing and Perfetto. Off until started; a
// span then costs two readings of the clock and one entry of the thread's own list.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace lowbit::trace {

extern std::atomic<bool> g_on;

inline bool on() { return g_on.load(std::memory_order_relaxed); }

// Begins to record in every thread, at most limits::kTraceSpans spans each; later ones are counted
// only.
void start();
// Ends recording and returns the trace as JSON (the "Trace Event Format": one complete event per
// span, times in microseconds). No thread may be inside of a span.
std::string finish();

// A name that stays valid: the same pointer for the same text. For places that run once.
const char* label(const std::string& text);

// Spans of something that is no thread, such as a GPU, in a row of their own called `track`. Names
// must stay valid; nanoseconds of the steady clock.
void add_span(const char* track, const char* name, int64_t start, int64_t end);
// Calls `collect` once, when finish() is called and before it returns the trace: adds spans that
// lie elsewhere.
void before_finish(std::function<void()> collect);

// From construction to destruction, in this thread. `name` must stay valid (a literal or label());
// null records nothing.
class Span {
 public:
  explicit Span(const char* name) : name_(on() ? name : nullptr) {
    if (name_ != nullptr) start_ = now();
  }
  ~Span() {
    if (name_ != nullptr) record(name_, start_, now());
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  static int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  static void record(const char* name, int64_t start, int64_t end);

  const char* name_;
  int64_t start_ = 0;
};

}  // namespace lowbit::trace

#include "lowbit/base/trace.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/base/limits.h"

namespace lowbit::trace {

std::atomic<bool> g_on{false};

namespace {

struct Event {
  const char* name;
  int64_t start, end;  // ns
};

struct ThreadEvents {
  std::vector<Event> events;
  int64_t lost = 0;
};

std::mutex mutex;                                    // guards what follows
std::vector<std::unique_ptr<ThreadEvents>> threads;  // in the order of their first spans
std::set<std::string> labels;

ThreadEvents& this_thread() {
  thread_local ThreadEvents* mine = nullptr;
  if (mine == nullptr) {
    const std::lock_guard lock(mutex);
    threads.push_back(std::make_unique<ThreadEvents>());
    mine = threads.back().get();
  }
  return *mine;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3f", value);
  return text;
}

}  // namespace

void start() {
  const std::lock_guard lock(mutex);
  for (const auto& thread : threads) *thread = ThreadEvents{};
  g_on = true;
}

const char* label(const std::string& text) {
  const std::lock_guard lock(mutex);
  return labels.insert(text).first->c_str();
}

void Span::record(const char* name, int64_t start, int64_t end) {
  ThreadEvents& mine = this_thread();
  if (mine.events.size() < limits::kTraceSpans) {
    mine.events.push_back({name, start, end});
  } else {
    ++mine.lost;
  }
}

std::string finish() {
  g_on = false;
  const std::lock_guard lock(mutex);
  int64_t first = INT64_MAX, lost = 0;
  for (const auto& thread : threads) {
    for (const Event& event : thread->events) first = std::min(first, event.start);
    lost += thread->lost;
  }
  std::string text =
      "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"lost_spans\":" + std::to_string(lost) +
      "},\"traceEvents\":[";
  for (size_t thread = 0; thread < threads.size(); ++thread) {
    const std::string id = std::to_string(thread);
    text += (thread > 0 ? ",\n" : "\n");
    text += R"({"name":"thread_name","ph":"M","pid":1,"tid":)" + id +
            R"(,"args":{"name":"thread )" + id + "\"}}";
    for (const Event& event : threads[thread]->events) {
      text += ",\n{\"name\":" + dump_json(Json(event.name)) + R"(,"ph":"X","pid":1,"tid":)" + id +
              ",\"ts\":" + number(static_cast<double>(event.start - first) / 1e3) +
              ",\"dur\":" + number(static_cast<double>(event.end - event.start) / 1e3) + "}";
    }
  }
  return text + "\n]}\n";
}

}  // namespace lowbit::trace

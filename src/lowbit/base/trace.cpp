#include "lowbit/base/trace.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
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
std::vector<std::function<void()>> collectors;
struct Track {
  const char* name;
  ThreadEvents spans;
};
std::vector<Track> tracks;

void add(ThreadEvents& to, const Event& event) {
  if (to.events.size() < limits::kTraceSpans) {
    to.events.push_back(event);
  } else {
    ++to.lost;
  }
}

ThreadEvents& track_called(const char* name) {
  for (Track& track : tracks) {
    if (std::strcmp(track.name, name) == 0) return track.spans;
  }
  return tracks.emplace_back(Track{name, {}}).spans;
}

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
  tracks.clear();
  collectors.clear();
  g_on = true;
}

const char* label(const std::string& text) {
  const std::lock_guard lock(mutex);
  return labels.insert(text).first->c_str();
}

void add_span(const char* track, const char* name, int64_t start, int64_t end) {
  const std::lock_guard lock(mutex);
  add(track_called(track), {name, start, end});
}

void before_finish(std::function<void()> collect) {
  const std::lock_guard lock(mutex);
  collectors.push_back(std::move(collect));
}

void Span::record(const char* name, int64_t start, int64_t end) {
  add(this_thread(), {name, start, end});
}

namespace {

// Collectors add spans themselves, so without the lock.
void collect_all() {
  std::vector<std::function<void()>> calls;
  {
    const std::lock_guard lock(mutex);
    calls.swap(collectors);
  }
  for (const auto& collect : calls) collect();
}

// One row of the trace; `first` is its time zero.
void append_row(std::string& text, const std::string& name, size_t row, const ThreadEvents& spans,
                int64_t first) {
  const std::string id = std::to_string(row);
  text += (row > 0 ? ",\n" : "\n");
  text += R"({"name":"thread_name","ph":"M","pid":1,"tid":)" + id + R"(,"args":{"name":")" + name +
          "\"}}";
  for (const Event& event : spans.events) {
    text += ",\n{\"name\":" + dump_json(Json(event.name)) + R"(,"ph":"X","pid":1,"tid":)" + id +
            ",\"ts\":" + number(static_cast<double>(event.start - first) / 1e3) +
            ",\"dur\":" + number(static_cast<double>(event.end - event.start) / 1e3) + "}";
  }
}

}  // namespace

std::string finish() {
  g_on = false;
  collect_all();
  const std::lock_guard lock(mutex);
  std::vector<std::pair<std::string, const ThreadEvents*>> rows;
  for (size_t i = 0; i < threads.size(); ++i) {
    rows.emplace_back("thread " + std::to_string(i), threads[i].get());
  }
  for (const Track& track : tracks) rows.emplace_back(track.name, &track.spans);
  int64_t first = INT64_MAX, lost = 0;
  for (const auto& [name, spans] : rows) {
    for (const Event& event : spans->events) first = std::min(first, event.start);
    lost += spans->lost;
  }
  std::string text =
      "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"lost_spans\":" + std::to_string(lost) +
      "},\"traceEvents\":[";
  for (size_t i = 0; i < rows.size(); ++i) {
    append_row(text, rows[i].first, i, *rows[i].second, first);
  }
  return text + "\n]}\n";
}

}  // namespace lowbit::trace

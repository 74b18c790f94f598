// The inside of Engine. What is below the mutex is shared between threads, the rest belongs to the
// engine's.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lowbit/engine/block_pool.h"
#include "lowbit/engine/engine.h"
#include "lowbit/engine/model_runner.h"
#include "lowbit/engine/scheduler.h"
#include "lowbit/engine/sequence.h"

namespace lowbit {

struct Engine::Impl {
  using Clock = ActiveRequest::Clock;

  Impl(Model& m, const Tokenizer& t, EngineOptions o);

  // From any thread.
  Submission submit(Request request);

  // From the engine's thread.
  bool step();
  bool take_news();
  void hold(RequestId id, bool held);
  bool run_planned();
  void fail(const std::string& fault);
  void start(const std::vector<Sequence*>& planned);
  void settle(Sequence& sequence);
  void deliver(Sequence& sequence, Clock::time_point now);
  void end(ActiveRequest& request, FinishReason reason, const std::string& error = "");
  void end_all(FinishReason reason, const std::string& error = "");
  void retire(ActiveRequest& request, Clock::time_point now);
  void show_stats();

  // With the mutex held.
  bool has_news() const;
  bool done() const;

  Model& model;
  const Tokenizer& tokenizer;
  const EngineOptions options;
  const int64_t max_request_tokens;
  ModelRunner runner;
  BlockPool blocks;
  Scheduler scheduler;
  std::map<RequestId, std::unique_ptr<ActiveRequest>> requests;
  EngineStats counted;  // shown in stats after each step

  std::atomic<RequestId> next_id{1};

  mutable std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::unique_ptr<ActiveRequest>> inbox;
  std::vector<RequestId> cancels;
  std::vector<std::pair<RequestId, bool>> holds;  // in order
  bool draining = false;
  bool stopping = false;
  int64_t waiting_requests = 0;  // not yet started
  int64_t waiting_tokens = 0;    // of their prompts
  uint64_t accepted = 0;
  EngineStats stats;
};

}  // namespace lowbit

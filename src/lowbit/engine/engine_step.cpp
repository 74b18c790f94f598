// One step of the engine: what came in, the forward pass, what goes out.
#include <algorithm>
#include <chrono>
#include <utility>

#include "lowbit/base/stopwatch.h"
#include "lowbit/engine/engine_impl.h"

namespace lowbit {

namespace {

double seconds_between(ActiveRequest::Clock::time_point from, ActiveRequest::Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

bool Engine::Impl::step() {
  bool worked = false;
  try {
    worked = take_news();
    if (counted.healthy) worked = run_planned() || worked;
  } catch (const std::exception& error) {
    fail(error.what());
    worked = true;
  }
  if (worked) show_stats();
  return worked;
}

// First nobody can enter any more, then all who are here leave.
void Engine::Impl::fail(const std::string& fault) {
  counted.healthy = false;
  counted.fault = fault;
  show_stats();
  take_news();
  end_all(FinishReason::kError, "the engine has failed: " + fault);
}

bool Engine::Impl::take_news() {
  std::vector<std::unique_ptr<ActiveRequest>> arrivals;
  std::vector<RequestId> leavers;
  std::vector<std::pair<RequestId, bool>> held;
  bool stop = false;
  {
    const std::lock_guard lock(mutex);
    arrivals.swap(inbox);
    leavers.swap(cancels);
    held.swap(holds);
    stop = stopping;
  }
  const bool any_arrivals = !arrivals.empty();
  for (auto& arrival : arrivals) {
    for (const auto& choice : arrival->choices) scheduler.add(*choice);
    requests.emplace(arrival->id, std::move(arrival));
  }
  for (const auto& [id, wait] : held) hold(id, wait);
  for (const auto& [id, request] : requests) {
    if (request->cancelled) leavers.push_back(id);
  }
  for (const RequestId id : leavers) {
    const auto request = requests.find(id);
    if (request != requests.end()) end(*request->second, FinishReason::kCancelled);
  }
  const bool any = any_arrivals || !held.empty() || !leavers.empty() || (stop && !requests.empty());
  if (stop) end_all(FinishReason::kCancelled);
  return any;
}

void Engine::Impl::hold(RequestId id, bool held) {
  const auto found = requests.find(id);
  if (found == requests.end()) return;
  ActiveRequest& request = *found->second;
  request.held = held;
  if (!held) return;
  for (const auto& choice : request.choices) scheduler.pause(*choice);
}

bool Engine::Impl::run_planned() {
  const Stopwatch whole;
  const double before = runner.model_seconds() + runner.sample_seconds();
  const std::vector<Sequence*> planned = scheduler.plan();
  if (planned.empty()) return false;
  start(planned);
  runner.run(planned);
  for (Sequence* sequence : planned) settle(*sequence);
  const Clock::time_point now = Clock::now();
  std::vector<ActiveRequest*> done;
  for (Sequence* sequence : planned) {
    if (!sequence->answer.has_news()) continue;
    deliver(*sequence, now);
    if (sequence->request.unfinished == 0) done.push_back(&sequence->request);
  }
  for (ActiveRequest* request : done) retire(*request, now);
  const double inside = runner.model_seconds() + runner.sample_seconds() - before;
  counted.other_seconds += whole.seconds() - inside;
  return true;
}

void Engine::Impl::start(const std::vector<Sequence*>& planned) {
  ++counted.steps;
  int64_t tokens = 0;
  int64_t requests_started = 0, tokens_started = 0;
  for (const Sequence* sequence : planned) {
    tokens += sequence->scheduled;
    counted.draft_tokens += sequence->guess.size();
    ActiveRequest& request = sequence->request;
    if (std::exchange(request.started, true)) continue;
    request.scheduled = Clock::now();
    request.usage.cached_tokens = sequence->computed;
    counted.request_queue_time_seconds.add(seconds_between(request.arrived, request.scheduled));
    ++requests_started;
    tokens_started += request.usage.prompt_tokens;
  }
  counted.iteration_tokens.add(static_cast<double>(tokens));
  if (requests_started == 0) return;
  const std::lock_guard lock(mutex);
  waiting_requests -= requests_started;
  waiting_tokens -= tokens_started;
}

// What the forward pass has changed, but for what goes out.
void Engine::Impl::settle(Sequence& sequence) {
  ActiveRequest& request = sequence.request;
  const auto drawn = static_cast<uint64_t>(sequence.answer.news_tokens());
  counted.generation_tokens += drawn;
  if (drawn > 1) counted.accepted_tokens += drawn - 1;
  scheduler.publish(sequence);
  if (!request.prompt_computed && sequence.computed >= sequence.prompt_tokens) {
    request.prompt_computed = true;
    counted.prompt_tokens += static_cast<uint64_t>(sequence.prompt_tokens);
    if (request.choices.size() > 1) scheduler.publish_all(sequence);
  }
  if (sequence.computed == sequence.size()) sequence.answer.finish(FinishReason::kLength);
  if (!sequence.answer.finished()) return;
  request.prompt_computed = true;  // or never will be
  scheduler.remove(sequence);
}

void Engine::Impl::deliver(Sequence& sequence, Clock::time_point now) {
  ActiveRequest& request = sequence.request;
  const int64_t tokens = sequence.answer.news_tokens();
  if (tokens > 0) {
    if (request.first_token == Clock::time_point()) {
      request.first_token = now;
      counted.time_to_first_token_seconds.add(seconds_between(request.arrived, now));
    }
    if (sequence.last_token != Clock::time_point()) {
      const double gap = seconds_between(sequence.last_token, now) / static_cast<double>(tokens);
      for (int64_t i = 0; i < tokens; ++i) counted.inter_token_latency_seconds.add(gap);
    }
    sequence.last_token = now;
  }
  if (sequence.answer.finished() && request.unfinished == 1) {
    ++counted.finished[static_cast<size_t>(sequence.answer.reason())];
  }
  request.deliver(sequence);
}

void Engine::Impl::end(ActiveRequest& request, FinishReason reason, const std::string& error) {
  const Clock::time_point now = Clock::now();
  for (const auto& choice : request.choices) {
    if (choice->answer.finished()) continue;
    scheduler.remove(*choice);
    if (reason == FinishReason::kError) choice->answer.fail(error);
    choice->answer.finish(reason);
    deliver(*choice, now);
  }
  retire(request, now);
}

void Engine::Impl::end_all(FinishReason reason, const std::string& error) {
  while (!requests.empty()) end(*requests.begin()->second, reason, error);
}

void Engine::Impl::retire(ActiveRequest& request, Clock::time_point now) {
  const auto tokens = static_cast<double>(request.usage.completion_tokens);
  counted.e2e_request_latency_seconds.add(seconds_between(request.arrived, now));
  counted.request_prompt_tokens.add(static_cast<double>(request.usage.prompt_tokens));
  counted.request_generation_tokens.add(tokens);
  if (request.first_token != Clock::time_point()) {
    const double decode = seconds_between(request.first_token, now);
    counted.request_prefill_time_seconds.add(
        seconds_between(request.scheduled, request.first_token));
    counted.request_decode_time_seconds.add(decode);
    const double steps = tokens - static_cast<double>(request.choices.size());
    if (steps > 0) counted.request_time_per_output_token_seconds.add(decode / steps);
  }
  if (!request.started) {
    const std::lock_guard lock(mutex);
    --waiting_requests;
    waiting_tokens -= request.usage.prompt_tokens;
  }
  requests.erase(request.id);
}

void Engine::Impl::show_stats() {
  counted.running = scheduler.running();
  counted.waiting = scheduler.waiting();
  counted.kv_blocks_held = blocks.held();
  counted.kv_blocks_cached = blocks.cached();
  counted.prefix_cache_queries = scheduler.counts().prefix_cache_queries;
  counted.prefix_cache_hits = scheduler.counts().prefix_cache_hits;
  counted.preemptions = scheduler.counts().preemptions;
  counted.model_seconds = runner.model_seconds();
  counted.sample_seconds = runner.sample_seconds();
  const std::lock_guard lock(mutex);
  counted.requests = accepted;
  stats = counted;
  for (const auto& arrival : inbox) stats.waiting += static_cast<int64_t>(arrival->choices.size());
}

}  // namespace lowbit

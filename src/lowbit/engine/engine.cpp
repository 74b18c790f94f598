#include "lowbit/engine/engine.h"

#include <algorithm>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/engine/engine_impl.h"

namespace lowbit {

namespace {

int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

int64_t default_kv_blocks(const Model& model, const EngineOptions& options) {
  const int64_t context_blocks = blocks_for(model.context());
  const int64_t block_bytes = model.config().kv_cache(1, options.kv_dtype).bytes();
  return std::max(context_blocks, std::min(options.max_num_seqs * context_blocks,
                                           model.backend().cache_bytes() / block_bytes));
}

EngineOptions resolve(EngineOptions options, const Model& model) {
  LOWBIT_CHECK(options.max_num_seqs > 0, "max_num_seqs must be positive, not ",
               options.max_num_seqs);
  LOWBIT_CHECK(options.max_num_batched_tokens >= 0, "max_num_batched_tokens must be 0 (",
               model.max_batch(), ") or more, not ", options.max_num_batched_tokens);
  LOWBIT_CHECK(options.kv_blocks >= 0, "kv_blocks must be 0 (enough) or more, not ",
               options.kv_blocks);
  LOWBIT_CHECK(options.max_waiting > 0 && options.max_waiting_tokens > 0,
               "max_waiting and max_waiting_tokens must be positive, not ", options.max_waiting,
               " and ", options.max_waiting_tokens);
  int64_t& budget = options.max_num_batched_tokens;
  budget = budget == 0 ? model.max_batch() : std::min(budget, model.max_batch());
  options.max_num_seqs = std::min(options.max_num_seqs, budget);  // each decodes in every step
  if (options.kv_blocks == 0) options.kv_blocks = default_kv_blocks(model, options);
  return options;
}

}  // namespace

Engine::Impl::Impl(Model& m, const Tokenizer& t, EngineOptions o)
    : model(m),
      tokenizer(t),
      options(resolve(std::move(o), m)),
      max_request_tokens(std::min(m.context(), options.kv_blocks * kBlockTokens)),
      runner(m, options.kv_blocks, options.kv_dtype),
      blocks(options.kv_blocks),
      scheduler({options.max_num_seqs, options.max_num_batched_tokens, options.drafter.get()},
                blocks, [this](int32_t from, int32_t to) { runner.copy_block(from, to); }) {
  counted.kv_blocks = options.kv_blocks;
  counted.kv_bytes = model.config().kv_cache(options.kv_blocks, options.kv_dtype).bytes();
  counted.kv_dtype = options.kv_dtype;
  stats = counted;
}

Engine::Engine(Model& model, const Tokenizer& tokenizer, EngineOptions options)
    : impl_(std::make_unique<Impl>(model, tokenizer, std::move(options))) {}

Engine::~Engine() = default;

Submission Engine::submit(Request request) { return impl_->submit(std::move(request)); }

bool Engine::queue_full() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->waiting_requests >= impl_->options.max_waiting;
}

void Engine::cancel(RequestId id) {
  const std::lock_guard lock(impl_->mutex);
  impl_->cancels.push_back(id);
  impl_->wake.notify_all();
}

void Engine::hold(RequestId id, bool held) {
  const std::lock_guard lock(impl_->mutex);
  impl_->holds.emplace_back(id, held);
  impl_->wake.notify_all();
}

void Engine::drain() {
  const std::lock_guard lock(impl_->mutex);
  impl_->draining = true;
  impl_->wake.notify_all();
}

void Engine::stop() {
  const std::lock_guard lock(impl_->mutex);
  impl_->stopping = true;
  impl_->wake.notify_all();
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->stats;
}

int64_t Engine::max_request_tokens() const { return impl_->max_request_tokens; }
const Model& Engine::model() const { return impl_->model; }
const Tokenizer& Engine::tokenizer() const { return impl_->tokenizer; }

bool Engine::step() { return impl_->step(); }

void Engine::run() {
  while (true) {
    if (impl_->step()) continue;
    std::unique_lock lock(impl_->mutex);
    if (impl_->done()) return;
    impl_->wake.wait(lock, [&] { return impl_->has_news() || impl_->done(); });
  }
}

Submission Engine::Impl::submit(Request request) {
  validate(request, model.config().vocab_size, max_request_tokens);
  const auto tokens = static_cast<int64_t>(request.prompt.size());
  const int64_t room = max_request_tokens - tokens;
  const int64_t max_tokens = request.max_tokens < 0 ? room : std::min(request.max_tokens, room);
  const RequestId id = next_id.fetch_add(1);
  auto active = std::make_unique<ActiveRequest>(id, std::move(request), tokenizer,
                                                model.config().eos_token_ids, max_tokens);
  active->cache_root =
      options.prefix_cache ? "salt " + active->request.cache_salt : concat("request ", id);
  const auto choices = static_cast<int64_t>(active->choices.size());

  const std::lock_guard lock(mutex);
  if (!stats.healthy) return {Admission::kUnhealthy};
  if (draining || stopping) return {Admission::kStopping};
  if (waiting_requests >= options.max_waiting ||
      (waiting_requests > 0 && waiting_tokens + tokens > options.max_waiting_tokens)) {
    return {Admission::kQueueFull};
  }
  ++waiting_requests;
  waiting_tokens += tokens;
  stats.requests = ++accepted;
  stats.waiting += choices;
  inbox.push_back(std::move(active));
  wake.notify_all();
  return {Admission::kAccepted, id};
}

bool Engine::Impl::has_news() const { return !inbox.empty() || !cancels.empty() || !holds.empty(); }

bool Engine::Impl::done() const {
  if (has_news()) return false;
  return !stats.healthy || stopping || (draining && requests.empty());
}

}  // namespace lowbit

#include "lowbit/engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "lowbit/runtime/kv_cache.h"

namespace lowbit {

namespace {

int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, BlockPool& blocks,
                     std::function<void(int32_t, int32_t)> copy_block)
    : options_(options), blocks_(blocks), copy_block_(std::move(copy_block)) {}

void Scheduler::add(Sequence& sequence) { waiting_.insert(&sequence); }

std::vector<Sequence*> Scheduler::plan() {
  budget_ = options_.max_num_batched_tokens;
  preempted_ = false;
  for (Sequence* sequence : running_) unschedule(*sequence);
  plan_decodes();
  plan_prefills();
  if (!preempted_) admit();
  std::vector<Sequence*> planned;
  for (Sequence* sequence : running_) {
    if (sequence->scheduled > 0) planned.push_back(sequence);
  }
  return planned;
}

void Scheduler::schedule(Sequence& sequence, int64_t count) {
  sequence.scheduled = count;
  budget_ -= count;
}

void Scheduler::unschedule(Sequence& sequence) {
  sequence.scheduled = 0;
  sequence.guess.clear();
}

void Scheduler::plan_decodes() {
  std::vector<Sequence*> decoding;
  const std::vector<Sequence*> running(running_.begin(), running_.end());
  for (Sequence* sequence : running) {
    const bool preempted = running_.count(sequence) == 0;
    if (preempted || !sequence->decoding() || !reserve(*sequence, sequence->size())) continue;
    schedule(*sequence, 1);
    decoding.push_back(sequence);
  }
  if (options_.drafter != nullptr) ask_drafter(decoding);
}

// Guesses take only what is left over: tokens of the budget, and blocks without preemption.
void Scheduler::ask_drafter(std::vector<Sequence*>& decoding) {
  std::vector<DraftQuery> queries(decoding.size());
  for (size_t i = 0; i < decoding.size(); ++i) {
    const Sequence& sequence = *decoding[i];
    queries[i].sequence = sequence.number;
    queries[i].history = sequence.ids;
    queries[i].prompt_tokens = sequence.prompt_tokens;
    queries[i].sampling = &sequence.sampling;
    // The token after the last guess is drawn in any case.
    queries[i].max_tokens =
        std::clamp(sequence.answer.room() - 1, int64_t{0}, options_.drafter->max_tokens());
  }
  options_.drafter->guess(queries);
  for (size_t i = 0; i < decoding.size(); ++i) {
    Sequence& sequence = *decoding[i];
    std::vector<int32_t>& guess = queries[i].guess;
    const int64_t limit = std::min(budget_, queries[i].max_tokens);
    if (static_cast<int64_t>(guess.size()) > limit) guess.resize(static_cast<size_t>(limit));
    const auto count = static_cast<int64_t>(guess.size());
    if (count == 0 || !extend(sequence, sequence.size() + count)) continue;
    sequence.guess = std::move(guess);
    sequence.scheduled += count;
    budget_ -= count;
  }
}

void Scheduler::plan_prefills() {
  for (Sequence* sequence : running_) {
    if (budget_ == 0) return;
    if (!sequence->decoding() && sequence->scheduled == 0) {
      schedule(*sequence, std::min(budget_, sequence->size() - sequence->computed));
    }
  }
}

void Scheduler::admit() {
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    if (budget_ == 0 || running() >= options_.max_num_seqs) return;
    Sequence& sequence = **next;
    const bool waits_for_prompt = sequence.index > 0 && !sequence.request.prompt_computed;
    if (sequence.request.held || waits_for_prompt) {
      ++next;
      continue;
    }
    if (!admit(sequence)) return;
    next = waiting_.erase(next);
    running_.insert(&sequence);
    schedule(sequence, std::min(budget_, sequence.size() - sequence.computed));
  }
}

bool Scheduler::admit(Sequence& sequence) {
  const auto usable = static_cast<size_t>(sequence.usable_prefix());
  const BlockPool::Match match =
      blocks_.find(sequence.request.cache_root, std::span(sequence.ids).first(usable));
  int64_t available = blocks_.available();
  for (const int32_t block : match.blocks) available -= blocks_.held(block) ? 0 : 1;
  const auto known = static_cast<int64_t>(match.blocks.size());
  if (blocks_for(sequence.size()) - known > available) return false;
  take_prefix(sequence, match);
  extend(sequence, sequence.size());
  return true;
}

void Scheduler::take_prefix(Sequence& sequence, const BlockPool::Match& match) {
  for (const int32_t block : match.blocks) blocks_.hold(block);
  sequence.block_table = match.blocks;
  sequence.published = static_cast<int64_t>(match.blocks.size());
  sequence.computed = sequence.published * kBlockTokens;
  if (match.partial >= 0 && take_partial(sequence, match)) {
    sequence.computed += match.partial_tokens;
  }
  counts_.prefix_cache_queries += static_cast<uint64_t>(sequence.size());
  counts_.prefix_cache_hits += static_cast<uint64_t>(sequence.computed);
}

// A block that begins right is copied, because both sequences will write behind what they share;
// one that nobody holds and that holds nothing else is taken as it is.
bool Scheduler::take_partial(Sequence& sequence, const BlockPool::Match& match) {
  const bool alone = match.partial_whole && !blocks_.held(match.partial);
  blocks_.hold(match.partial);
  int32_t block = match.partial;
  if (!alone) {
    block = blocks_.allocate();
    if (block >= 0) copy_block_(match.partial, block);
    blocks_.release(match.partial);
  }
  if (block < 0) return false;
  sequence.block_table.push_back(block);
  return true;
}

// Covers `tokens` tokens with blocks, if there are enough without taking any from others.
bool Scheduler::extend(Sequence& sequence, int64_t tokens) {
  const int64_t missing = blocks_for(tokens) - static_cast<int64_t>(sequence.block_table.size());
  if (missing > blocks_.available()) return false;
  for (int64_t i = 0; i < missing; ++i) sequence.block_table.push_back(blocks_.allocate());
  return true;
}

// The same, taking them from those behind it in the order. False if it had to give up itself.
bool Scheduler::reserve(Sequence& sequence, int64_t tokens) {
  while (!extend(sequence, tokens)) {
    Sequence& last = **running_.rbegin();
    preempt(last);
    if (&last == &sequence) return false;
  }
  return true;
}

void Scheduler::pause(Sequence& sequence) {
  if (running_.erase(&sequence) == 0) return;
  unschedule(sequence);
  release(sequence);
  waiting_.insert(&sequence);
}

void Scheduler::preempt(Sequence& sequence) {
  budget_ += sequence.scheduled;
  pause(sequence);
  preempted_ = true;
  ++counts_.preemptions;
}

void Scheduler::publish_block(Sequence& sequence, int64_t tokens) {
  std::vector<int32_t>& table = sequence.block_table;
  const auto index = static_cast<size_t>(sequence.published);
  const int32_t parent = index == 0 ? -1 : table[index - 1];
  const auto content = std::span(sequence.ids).subspan(index * kBlockTokens);
  table[index] = blocks_.publish(sequence.request.cache_root, parent,
                                 content.first(static_cast<size_t>(tokens)), table[index]);
}

void Scheduler::publish(Sequence& sequence) {
  for (; (sequence.published + 1) * kBlockTokens <= sequence.computed; ++sequence.published) {
    publish_block(sequence, kBlockTokens);
  }
}

void Scheduler::publish_all(Sequence& sequence) {
  publish(sequence);
  const int64_t rest = sequence.computed - sequence.published * kBlockTokens;
  if (rest > 0) publish_block(sequence, rest);
}

void Scheduler::release(Sequence& sequence) {
  publish_all(sequence);
  for (; !sequence.block_table.empty(); sequence.block_table.pop_back()) {
    blocks_.release(sequence.block_table.back());
  }
  sequence.computed = 0;
  sequence.published = 0;
  if (options_.drafter != nullptr) options_.drafter->forget(sequence.number);
}

void Scheduler::remove(Sequence& sequence) {
  waiting_.erase(&sequence);
  if (running_.erase(&sequence) > 0) release(sequence);
  unschedule(sequence);
}

}  // namespace lowbit

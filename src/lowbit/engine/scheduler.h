// Scheduler: which sequences run in a step, how many tokens of each, in which blocks.
//
// Order is priority, then arrival. Who runs goes on: one token each, and guesses while there is
// room; then chunks of prompts; then who waits is admitted as long as the blocks for all its tokens
// are there. When blocks run out, the last in the order gives its up and waits again; its tokens
// are kept, so it computes what the cache forgot and goes on as if nothing had been. The first in
// the order is never stopped and fits alone (checked at submission), so there is always progress.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "lowbit/engine/block_pool.h"
#include "lowbit/engine/drafter.h"
#include "lowbit/engine/sequence.h"

namespace lowbit {

struct SchedulerOptions {
  int64_t max_num_seqs = 0;
  int64_t max_num_batched_tokens = 0;  // at least max_num_seqs
  Drafter* drafter = nullptr;
};

struct SchedulerCounts {
  uint64_t prefix_cache_queries = 0;
  uint64_t prefix_cache_hits = 0;
  uint64_t preemptions = 0;
};

class Scheduler {
 public:
  // copy_block copies the contents of one block of the KV cache to another.
  Scheduler(const SchedulerOptions& options, BlockPool& blocks,
            std::function<void(int32_t from, int32_t to)> copy_block);

  void add(Sequence& sequence);  // to those who wait
  // Fills in the plans of the sequences that run in this step, and returns them.
  std::vector<Sequence*> plan();
  // Lets others find what the sequence has computed: its full blocks, or the last one as well.
  void publish(Sequence& sequence);
  void publish_all(Sequence& sequence);
  // Sends a sequence that runs back to those who wait; its request says how long.
  void pause(Sequence& sequence);
  // Takes a sequence out, wherever it is.
  void remove(Sequence& sequence);

  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  const SchedulerCounts& counts() const { return counts_; }

 private:
  void plan_decodes();
  void ask_drafter(std::vector<Sequence*>& decoding);
  void plan_prefills();
  void admit();
  bool admit(Sequence& sequence);
  void take_prefix(Sequence& sequence, const BlockPool::Match& match);
  bool take_partial(Sequence& sequence, const BlockPool::Match& match);
  void schedule(Sequence& sequence, int64_t count);
  void unschedule(Sequence& sequence);
  bool extend(Sequence& sequence, int64_t tokens);
  bool reserve(Sequence& sequence, int64_t tokens);
  void publish_block(Sequence& sequence, int64_t tokens);
  void preempt(Sequence& sequence);
  void release(Sequence& sequence);

  SchedulerOptions options_;
  BlockPool& blocks_;
  std::function<void(int32_t, int32_t)> copy_block_;
  std::set<Sequence*, RunsBefore> waiting_, running_;
  int64_t budget_ = 0;  // tokens left in this step
  bool preempted_ = false;
  SchedulerCounts counts_;
};

}  // namespace lowbit

// Engine: many requests at once on one model. Continuous batching over a paged KV cache: each step
// is one forward pass over decode steps and chunks of prompts.
//
// The tokens of a request depend on the model, its prompt, its parameters and its seed alone: not
// on what else runs, on chunks, cached prefixes, preemption or speculation.
#pragma once

#include <cstdint>
#include <memory>

#include "lowbit/engine/drafter.h"
#include "lowbit/engine/engine_stats.h"
#include "lowbit/engine/request.h"
#include "lowbit/model/model.h"
#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit {

struct EngineOptions {
  DType kv_dtype = DType::kF16;
  int64_t kv_blocks = 0;  // 0: what max_num_seqs whole contexts need, within Backend::cache_bytes()
  int64_t max_num_seqs = 64;             // running at once
  int64_t max_num_batched_tokens = 0;    // in one step; 0: the model's max_batch
  int64_t max_waiting = 256;             // requests waiting to start
  int64_t max_waiting_tokens = 1 << 20;  // of their prompts
  bool prefix_cache = true;              // across requests
  std::unique_ptr<Drafter> drafter;      // speculative decoding; null: none
};

enum class Admission {
  kAccepted,
  kQueueFull,  // try again later (429)
  kStopping,   // drain() or stop() was called (503)
  kUnhealthy,  // a step failed; nothing more will run (503)
};

struct Submission {
  Admission admission = Admission::kAccepted;
  RequestId id = 0;  // if accepted
};

class Engine {
 public:
  // model and tokenizer must outlive it. Allocates the KV cache; throws kInvalidArgument if an
  // option is out of range.
  Engine(Model& model, const Tokenizer& tokenizer, EngineOptions options = {});
  ~Engine();  // run() must have returned
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // From any thread:

  // Checks everything about the request before it enters. Throws kInvalidArgument if it can never
  // be answered: an empty prompt, one that leaves no room in max_request_tokens(), an id outside
  // the vocabulary, a parameter out of range (the message names it).
  Submission submit(Request request);
  // Whether submit() would say kQueueFull even to the shortest prompt, so that nobody need prepare
  // one.
  bool queue_full() const;
  // Ends a request before the next step, with kCancelled; an unknown or finished id is ignored.
  void cancel(RequestId id);
  // Lets a request wait, from the next step on, or go on again: it makes no tokens meanwhile, and
  // others may take its place and its blocks. For answers that are read more slowly than they are
  // made. They stay the same.
  void hold(RequestId id, bool held);
  // Refuses new requests; run() returns when those that are here are done.
  void drain();
  // Refuses new requests; run() cancels those that are here and returns.
  void stop();
  EngineStats stats() const;
  // Prompt and answer of one choice together fit in this: the model's context, or what the KV cache
  // holds.
  int64_t max_request_tokens() const;
  const Model& model() const;
  const Tokenizer& tokenizer() const;

  // From one thread, the engine's:

  // One step; false if there was nothing to do. Never throws: a fault of one request ends that one,
  // a fault of the forward pass ends all with kError and makes the engine unhealthy.
  bool step();
  // Steps until drain() or stop() lets it return, or the engine is unhealthy; sleeps while there is
  // nothing to do.
  void run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lowbit

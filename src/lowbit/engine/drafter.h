// Drafter: guesses the next tokens of sequences for speculative decoding. The engine runs the
// guesses as ordinary rows of the next step, draws from every row as it would have drawn without
// them, and keeps guesses as long as they equal what it drew. So answers never change; only speed
// does.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/engine/sampler.h"

namespace lowbit {

struct DraftQuery {
  uint64_t sequence = 0;             // names the sequence from query to query
  std::span<const int32_t> history;  // prompt and answer so far
  int64_t prompt_tokens = 0;         // of history
  const SamplingParams* sampling = nullptr;
  int64_t max_tokens = 0;      // to guess at most
  std::vector<int32_t> guess;  // filled in
};

class Drafter {
 public:
  virtual ~Drafter() = default;
  virtual std::string name() const = 0;
  virtual int64_t max_tokens() const = 0;  // guessed for one sequence at once
  // Called once a step, with all sequences that decode.
  virtual void guess(std::span<DraftQuery> queries) = 0;
  // The sequence will not be asked for again (it may, after a while, if it was preempted).
  virtual void forget(uint64_t sequence) = 0;
};

}  // namespace lowbit

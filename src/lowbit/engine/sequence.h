// Sequence: one choice of a request on its way through the engine.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/engine/answer.h"
#include "lowbit/engine/request.h"

namespace lowbit {

class ActiveRequest;

struct Sequence {
  Sequence(ActiveRequest& of, int choice, Answer new_answer);

  ActiveRequest& request;
  const int index;          // of the choice
  const uint64_t number;    // names it to the drafter
  SamplingParams sampling;  // with the choice's own seed
  Answer answer;
  std::unique_ptr<TokenConstraint> constraint;
  // Of the first choice, if asked for: of the tokens so far, the very first one included.
  std::vector<PositionLogprobs> prompt_logprobs;

  std::vector<int32_t> ids;  // prompt and answer
  int64_t prompt_tokens = 0;
  std::vector<int32_t> block_table;
  int64_t computed = 0;   // tokens whose keys and values are in the blocks
  int64_t published = 0;  // full blocks that others can find

  // The plan of one step: `scheduled` tokens from position `computed` on, the last of them guesses.
  int64_t scheduled = 0;
  std::vector<int32_t> guess;

  std::chrono::steady_clock::time_point last_token;

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
  bool decoding() const { return computed + 1 == size(); }
  // Tokens of a known prefix that may be taken from the cache: the last token runs in any case, as
  // do those whose logits tell the logprobs of the prompt.
  int64_t usable_prefix() const;
};

// A request in the engine.
class ActiveRequest {
 public:
  using Clock = std::chrono::steady_clock;

  // max_tokens: of an answer, resolved.
  ActiveRequest(RequestId request_id, Request new_request, const Tokenizer& tokenizer,
                std::span<const int32_t> model_end_tokens, int64_t max_tokens);

  // Sends what is new of a choice, or keeps it until the best of all are known.
  void deliver(Sequence& choice);

  const RequestId id;
  const Request request;
  const EndTokens ends;
  std::string cache_root;  // requests with the same one share prefixes
  std::vector<std::unique_ptr<Sequence>> choices;
  int64_t unfinished;            // choices
  bool prompt_computed = false;  // by the first choice; the others wait for it
  bool started = false;
  bool cancelled = false;
  bool held = false;  // waits, whatever there is room for
  Usage usage;
  Clock::time_point arrived = Clock::now();
  Clock::time_point scheduled, first_token;

 private:
  void keep(Output output, double score);
  void send_best();
  void send(Output output);

  struct Kept {
    Output output;
    double score = 0;  // mean logprob
  };
  std::vector<Kept> kept_;  // by choice
};

inline int64_t Sequence::usable_prefix() const {
  const int64_t all = size() - 1;
  if (prompt_logprobs.empty()) return all;
  return std::min(all, static_cast<int64_t>(prompt_logprobs.size()) - 1);
}

// Lower priority values first, then in order of arrival.
struct RunsBefore {
  bool operator()(const Sequence* a, const Sequence* b) const;
};

}  // namespace lowbit

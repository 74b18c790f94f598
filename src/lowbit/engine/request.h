// What goes into the engine and what comes out of it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lowbit/engine/sampler.h"
#include "lowbit/engine/token_constraint.h"

namespace lowbit {

enum class FinishReason { kStop, kLength, kCancelled, kError };
const char* name_of(FinishReason reason);  // "stop", "length", "cancelled", "error"

using RequestId = uint64_t;  // of one engine; never used twice, never 0

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;  // natural; of softmax(logits) before penalties, bias, masks and temperature
  int64_t rank = 0;   // 1: the likeliest
};

struct PositionLogprobs {
  TokenLogprob token;             // the one that stands there
  std::vector<TokenLogprob> top;  // the likeliest, best first; as many as asked for
};

// Token counts of a request so far.
struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;      // of the prompt: found in the prefix cache when it first started
  int64_t completion_tokens = 0;  // of all choices that ran, those that best_of dropped included
};

// News of one choice. Outputs of a choice, joined, are its answer.
struct Output {
  RequestId request = 0;
  int index = 0;                           // of the choice, [0, n)
  std::string text;                        // whole UTF-8 characters
  std::vector<int32_t> ids;                // an end token that was drawn included
  std::vector<PositionLogprobs> logprobs;  // of ids, if asked for

  // Set in the last output of a choice.
  std::optional<FinishReason> finish_reason;
  std::string stop_string;  // the stop string that ended it, or
  int32_t stop_token = -1;  // the end token or stop token id that did
  std::string error;        // why, for kError

  // In the first output of a request, if asked for: [prompt tokens], the first without anything
  // (rank 0), as no token precedes it.
  std::vector<PositionLogprobs> prompt_logprobs;

  bool last = false;  // nothing more comes for this request
  Usage usage;
};

// Called on the thread of the engine, in order, without any lock held: it must be quick, and may
// call submit() and cancel(). Every accepted request gets exactly one output with `last` set. It
// must not throw.
using OutputCallback = std::function<void(Output&&)>;

struct Request {
  std::vector<int32_t> prompt;
  SamplingParams sampling;  // choice i > 0 draws with a seed made of sampling.seed and i

  int64_t max_tokens = -1;  // -1: until the context is full; more than fits counts as -1
  int64_t min_tokens = 0;   // before it no end token, stop token or stop string ends the text
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;  // end the text as an end token does, ignore_eos or not
  std::vector<std::string> stop;        // text that ends the answer
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;  // in the text

  int n = 1;        // choices to return
  int best_of = 0;  // choices to run, 0: n; more than n: the n with the highest mean logprob, sent
                    // when all are done
  int logprobs = -1;         // -1: none; k: of the chosen token and the k likeliest
  int prompt_logprobs = -1;  // the same for the prompt; its KV is then computed, not looked up

  int priority = 0;        // lower runs first; equals in order of arrival
  std::string cache_salt;  // only requests with the same salt share cached prefixes
  std::shared_ptr<const TokenConstraint> constraint;  // cloned for each choice; null: none

  OutputCallback on_output;
};

// Throws kInvalidArgument naming what can never be answered. max_request_tokens: that fit, prompt
// and answer together.
void validate(const Request& request, int64_t vocab_size, int64_t max_request_tokens);

}  // namespace lowbit

#include "lowbit/engine/request.h"

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"

namespace lowbit {

namespace {

void check_ids(const char* what, const std::vector<int32_t>& ids, int64_t vocab_size) {
  for (const int32_t id : ids) {
    LOWBIT_CHECK(id >= 0 && id < vocab_size, what, ": token id ", id,
                 " is outside the vocabulary of ", vocab_size);
  }
}

void check_stops(const Request& request) {
  LOWBIT_CHECK(request.stop.size() <= limits::kStopStrings, "stop has ", request.stop.size(),
               " strings; at most ", limits::kStopStrings);
  for (const std::string& stop : request.stop) {
    LOWBIT_CHECK(!stop.empty(), "a stop string is empty");
    LOWBIT_CHECK(stop.size() <= limits::kStopStringBytes, "a stop string has ", stop.size(),
                 " bytes; at most ", limits::kStopStringBytes);
  }
  LOWBIT_CHECK(request.stop_token_ids.size() <= limits::kStopTokens, "stop_token_ids has ",
               request.stop_token_ids.size(), " ids; at most ", limits::kStopTokens);
}

void check_logprobs(const char* what, int count) {
  LOWBIT_CHECK(count >= -1 && count <= limits::kTopLogprobs, what, " must be -1 (none) or 0 to ",
               limits::kTopLogprobs, ", not ", count);
}

}  // namespace

const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "?";
}

void validate(const Request& request, int64_t vocab_size, int64_t max_request_tokens) {
  const auto size = static_cast<int64_t>(request.prompt.size());
  LOWBIT_CHECK(size > 0, "the prompt is empty; give at least one token");
  LOWBIT_CHECK(size < max_request_tokens || (size == max_request_tokens && request.max_tokens == 0),
               "the prompt has ", size, " tokens; a context of ", max_request_tokens,
               " leaves no room for an answer");
  check_ids("prompt", request.prompt, vocab_size);
  check_ids("stop_token_ids", request.stop_token_ids, vocab_size);
  check_stops(request);
  validate(request.sampling, vocab_size);
  LOWBIT_CHECK(request.max_tokens >= -1, "max_tokens must be -1 (no limit) or more, not ",
               request.max_tokens);
  LOWBIT_CHECK(request.min_tokens >= 0 &&
                   (request.max_tokens < 0 || request.min_tokens <= request.max_tokens),
               "min_tokens must be 0 to max_tokens (", request.max_tokens, "), not ",
               request.min_tokens);
  LOWBIT_CHECK(request.n >= 1 && request.n <= limits::kChoices, "n must be 1 to ", limits::kChoices,
               ", not ", request.n);
  LOWBIT_CHECK(
      request.best_of == 0 || (request.best_of >= request.n && request.best_of <= limits::kChoices),
      "best_of must be n (", request.n, ") to ", limits::kChoices, ", not ", request.best_of);
  check_logprobs("logprobs", request.logprobs);
  check_logprobs("prompt_logprobs", request.prompt_logprobs);
  LOWBIT_CHECK(request.cache_salt.size() <= limits::kCacheSaltBytes, "cache_salt has ",
               request.cache_salt.size(), " bytes; at most ", limits::kCacheSaltBytes);
  LOWBIT_CHECK(request.constraint == nullptr || !request.ignore_eos,
               "ignore_eos cannot be combined with a grammar, which says where the text ends");
}

}  // namespace lowbit

// Log-probabilities in the two shapes that the OpenAI API has for them, and why a choice ended.
#pragma once

#include "lowbit/engine/request.h"
#include "lowbit/server/api.h"

namespace lowbit::server {

// A token as text of its own; with `as_ids`, "token_id:17".
std::string token_text(const Api& api, int32_t id, bool as_ids);

// Chat: {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}.
class ChatLogprobs {
 public:
  ChatLogprobs(const Api& api, int top, bool as_ids) : api_(api), top_(top), as_ids_(as_ids) {}
  OrderedJson content(const std::vector<PositionLogprobs>& positions) const;

 private:
  OrderedJson entry(const TokenLogprob& token) const;
  const Api& api_;
  int top_;
  bool as_ids_;
};

// Completions: {"text_offset", "token_logprobs", "tokens", "top_logprobs"}; offsets count bytes of
// the text from its start on, over all calls.
class CompletionLogprobs {
 public:
  CompletionLogprobs(const Api& api, int top, bool as_ids)
      : api_(api), top_(top), as_ids_(as_ids) {}
  OrderedJson take(const std::vector<PositionLogprobs>& positions);

 private:
  const Api& api_;
  int top_;
  bool as_ids_;
  size_t offset_ = 0;
};

// vLLM's prompt_logprobs: for each position null or {"<id>": {"logprob", "rank",
// "decoded_token"}}.
OrderedJson prompt_logprobs_json(const Api& api, const std::vector<PositionLogprobs>& positions);

// vLLM's stop_reason: the stop string or stop token id that ended a choice; null for an end token.
OrderedJson stop_reason_json(const Api& api, const Output& output);

}  // namespace lowbit::server

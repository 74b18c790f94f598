// Answer: what becomes of the tokens that are drawn for one choice: text, and when to stop.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lowbit/engine/request.h"
#include "lowbit/engine/stop_strings.h"
#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit {

// Tokens that end the answers of a request.
struct EndTokens {
  EndTokens(const Request& request, std::span<const int32_t> model_end_tokens);
  bool contains(int32_t id) const;

  std::vector<int32_t> ids;
  size_t model_count = 0;  // of ids, in front: the model's own
};

class Answer {
 public:
  // request and ends must outlive it. max_tokens: 0 or more.
  Answer(const Tokenizer& tokenizer, const Request& request, const EndTokens& ends,
         int64_t max_tokens);

  // Takes the next token; may finish the answer.
  void push(int32_t id);
  void finish(FinishReason reason);
  void fail(const std::string& error);

  int64_t tokens() const { return tokens_; }
  int64_t room() const { return max_tokens_ - tokens_; }
  bool finished() const { return finished_; }
  std::span<const int32_t> forbidden() const;  // what may not be drawn now
  void add(PositionLogprobs logprobs);         // of the token pushed last
  double logprob_sum() const { return logprob_sum_; }

  FinishReason reason() const { return reason_; }  // if finished

  int64_t news_tokens() const { return static_cast<int64_t>(news_.ids.size()); }
  bool has_news() const { return !news_.ids.empty() || news_.finish_reason.has_value(); }
  Output take_news();  // request, index and usage are left to the caller

 private:
  void show(const std::string& text);

  const Request& request_;
  const EndTokens& ends_;
  int64_t max_tokens_;
  StreamDecoder decoder_;
  StopStrings stops_;
  Output news_;
  int64_t tokens_ = 0;
  double logprob_sum_ = 0;
  bool finished_ = false;
  FinishReason reason_ = FinishReason::kLength;
};

}  // namespace lowbit

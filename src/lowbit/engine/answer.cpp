#include "lowbit/engine/answer.h"

#include <algorithm>
#include <utility>

namespace lowbit {

EndTokens::EndTokens(const Request& request, std::span<const int32_t> model_end_tokens) {
  if (!request.ignore_eos) ids.assign(model_end_tokens.begin(), model_end_tokens.end());
  model_count = ids.size();
  ids.insert(ids.end(), request.stop_token_ids.begin(), request.stop_token_ids.end());
}

bool EndTokens::contains(int32_t id) const {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

Answer::Answer(const Tokenizer& tokenizer, const Request& request, const EndTokens& ends,
               int64_t max_tokens)
    : request_(request),
      ends_(ends),
      max_tokens_(max_tokens),
      decoder_(tokenizer, request.skip_special_tokens),
      stops_(request.stop) {}

std::span<const int32_t> Answer::forbidden() const {
  if (tokens_ >= request_.min_tokens) return {};
  return ends_.ids;
}

// Up to min_tokens, text is not searched for stop strings.
void Answer::show(const std::string& text) {
  news_.text += tokens_ <= request_.min_tokens ? text : stops_.push(text);
  if (!stops_.stopped()) return;
  news_.stop_string = stops_.found();
  if (request_.include_stop_str_in_output) news_.text += stops_.found();
}

void Answer::push(int32_t id) {
  ++tokens_;
  news_.ids.push_back(id);
  const bool end = tokens_ > request_.min_tokens && ends_.contains(id);
  const auto own = ends_.ids.begin() + static_cast<std::ptrdiff_t>(ends_.model_count);
  const bool own_end = std::find(ends_.ids.begin(), own, id) != own;
  if (!end || request_.include_stop_str_in_output || (own_end && !request_.skip_special_tokens)) {
    show(decoder_.push(id));
  }
  if (end) {
    news_.stop_token = id;
    finish(FinishReason::kStop);
  } else if (stops_.stopped()) {
    finish(FinishReason::kStop);
  } else if (tokens_ >= max_tokens_) {
    finish(FinishReason::kLength);
  }
}

void Answer::finish(FinishReason reason) {
  if (finished_) return;
  finished_ = true;
  if (!stops_.stopped()) {
    show(decoder_.finish());
    news_.text += stops_.finish();
  }
  news_.finish_reason = reason_ = reason;
}

void Answer::fail(const std::string& error) {
  if (finished_) return;
  finish(FinishReason::kError);
  news_.error = error;
}

void Answer::add(PositionLogprobs logprobs) {
  logprob_sum_ += static_cast<double>(logprobs.token.logprob);
  if (request_.logprobs >= 0) news_.logprobs.push_back(std::move(logprobs));
}

Output Answer::take_news() { return std::exchange(news_, Output()); }

}  // namespace lowbit

#include "lowbit/server/logprobs.h"

#include <algorithm>
#include <array>
#include <cmath>
namespace lowbit::server {

namespace {

// JSON has no infinity; vLLM writes this instead.
double finite(float logprob) { return std::max(static_cast<double>(logprob), -9999.0); }

bool is_first(const PositionLogprobs& position) { return position.token.rank == 0; }

// The likeliest, with the one that stands there behind them if it is none of them.
std::vector<TokenLogprob> with_chosen(const PositionLogprobs& position, int top) {
  std::vector<TokenLogprob> tokens = position.top;
  if (tokens.size() > static_cast<size_t>(top)) tokens.resize(static_cast<size_t>(top));
  const auto same = [&](const TokenLogprob& token) { return token.id == position.token.id; };
  if (std::none_of(tokens.begin(), tokens.end(), same)) tokens.push_back(position.token);
  return tokens;
}

}  // namespace

std::string token_text(const Api& api, int32_t id, bool as_ids) {
  if (as_ids) return "token_id:" + std::to_string(id);
  const std::array<int32_t, 1> ids = {id};
  return api.tokenizer().decode(ids);
}

OrderedJson ChatLogprobs::entry(const TokenLogprob& token) const {
  OrderedJson json;
  json["token"] = token_text(api_, token.id, as_ids_);
  json["logprob"] = finite(token.logprob);
  OrderedJson bytes = OrderedJson::array();
  const auto id = static_cast<size_t>(token.id);
  if (id < api_.token_bytes.size()) {
    for (const char byte : api_.token_bytes[id]) bytes.push_back(static_cast<uint8_t>(byte));
  }
  json["bytes"] = std::move(bytes);
  return json;
}

OrderedJson ChatLogprobs::content(const std::vector<PositionLogprobs>& positions) const {
  OrderedJson content = OrderedJson::array();
  for (const PositionLogprobs& position : positions) {
    OrderedJson json = entry(position.token);
    OrderedJson top = OrderedJson::array();
    for (size_t i = 0; i < position.top.size() && i < static_cast<size_t>(top_); ++i) {
      top.push_back(entry(position.top[i]));
    }
    json["top_logprobs"] = std::move(top);
    content.push_back(std::move(json));
  }
  return content;
}

OrderedJson CompletionLogprobs::take(const std::vector<PositionLogprobs>& positions) {
  OrderedJson offsets = OrderedJson::array(), logprobs = OrderedJson::array(),
              tokens = OrderedJson::array(), tops = OrderedJson::array();
  for (const PositionLogprobs& position : positions) {
    const std::string text = token_text(api_, position.token.id, as_ids_);
    offsets.push_back(offset_);
    offset_ += text.size();
    tokens.push_back(text);
    if (is_first(position)) {
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(finite(position.token.logprob));
    OrderedJson top = OrderedJson::object();
    for (const TokenLogprob& token : with_chosen(position, top_)) {
      const std::string name = token_text(api_, token.id, as_ids_);
      if (!top.contains(name)) top[name] = finite(token.logprob);  // the likeliest of that text
    }
    tops.push_back(std::move(top));
  }
  OrderedJson json;
  json["text_offset"] = std::move(offsets);
  json["token_logprobs"] = std::move(logprobs);
  json["tokens"] = std::move(tokens);
  json["top_logprobs"] = std::move(tops);
  return json;
}

OrderedJson stop_reason_json(const Api& api, const Output& output) {
  if (!output.stop_string.empty()) return output.stop_string;
  const auto& ends = api.engine.model().config().eos_token_ids;
  const bool named = output.stop_token >= 0 &&
                     std::find(ends.begin(), ends.end(), output.stop_token) == ends.end();
  return named ? OrderedJson(output.stop_token) : OrderedJson(nullptr);
}

OrderedJson prompt_logprobs_json(const Api& api, const std::vector<PositionLogprobs>& positions) {
  OrderedJson result = OrderedJson::array();
  for (const PositionLogprobs& position : positions) {
    if (is_first(position)) {
      result.push_back(nullptr);
      continue;
    }
    OrderedJson entry = OrderedJson::object();
    for (const TokenLogprob& token : with_chosen(position, static_cast<int>(position.top.size()))) {
      entry[std::to_string(token.id)] = {{"logprob", finite(token.logprob)},
                                         {"rank", token.rank},
                                         {"decoded_token", token_text(api, token.id, false)}};
    }
    result.push_back(std::move(entry));
  }
  return result;
}

}  // namespace lowbit::server

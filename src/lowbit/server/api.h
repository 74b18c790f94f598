// Api: the model as the endpoints see it. Immutable while the server runs; used by the thread that
// prepares requests and by the I/O thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lowbit/engine/engine.h"
#include "lowbit/server/guide.h"
#include "lowbit/server/tool_calls.h"
#include "lowbit/tokenizer/chat_template.h"

namespace lowbit::server {

struct Api {
  Engine& engine;
  const TokenizerSpec& spec;
  std::vector<std::string> token_bytes;  // by id, see tokenizer/token_bytes.h
  std::vector<std::string> names;  // of the model; the first is shown
  std::unique_ptr<ChatTemplate> chat_template;  // null: the model has none
  ToolStyle tool_style = ToolStyle::kHermes;
  SamplingParams defaults;  // for what a request leaves out
  int max_choices = 16;     // n or best_of, times prompts
  Guides& guides;
  int64_t created = 0;  // when the server started, Unix seconds

  const Tokenizer& tokenizer() const { return engine.tokenizer(); }
  int64_t max_model_len() const { return engine.max_request_tokens(); }
  const std::string& name() const { return names.front(); }
};

// Throws ApiError (404) if the body names a model that is not served; no name means ours.
void check_model(const Api& api, const OrderedJson& body);

// OpenAI's defaults (temperature 1, everything else off), with what a generation_config.json (may
// be null) says instead. Throws kCorruptFile or kInvalidArgument if that cannot be.
SamplingParams default_sampling(const Json& generation_config, int64_t vocab_size);

int64_t unix_seconds();
// "chatcmpl-" and 32 random hexadecimal digits.
std::string new_id(const char* prefix);

}  // namespace lowbit::server

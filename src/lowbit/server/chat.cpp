#include "lowbit/server/chat.h"

#include "lowbit/server/chat_prompt.h"
#include "lowbit/server/logprobs.h"
#include "lowbit/server/sampling.h"
#include "lowbit/server/tool_use.h"

namespace lowbit::server {

namespace {

constexpr Field kFields[] = {
    {"model", FieldKind::kString},
    {"messages", FieldKind::kArray},
    {"max_completion_tokens", FieldKind::kInteger, 1, 1 << 24},
    {"max_tokens", FieldKind::kInteger, 1, 1 << 24, "Older name of max_completion_tokens"},
    {"logprobs", FieldKind::kBoolean},
    {"top_logprobs", FieldKind::kInteger, 0, 20},
    {"prompt_logprobs", FieldKind::kInteger, 0, 20},
    {"stream", FieldKind::kBoolean},
    {"stream_options", FieldKind::kObject},
    {"tools", FieldKind::kArray},
    {"tool_choice", FieldKind::kAny},
    {"parallel_tool_calls", FieldKind::kBoolean},
    {"add_generation_prompt", FieldKind::kBoolean},
    {"continue_final_message", FieldKind::kBoolean},
    {"add_special_tokens", FieldKind::kBoolean},
    {"chat_template_kwargs", FieldKind::kObject},
    {"return_tokens_as_token_ids", FieldKind::kBoolean},
};

struct Options {
  bool logprobs = false;
  int top = 0;
  bool as_ids = false;
  bool prompt_logprobs = false;
  StreamOptions stream;
};

struct ToolCall {
  std::string id, name, arguments;
};

class ChatAnswer final : public Answer {
 public:
  ChatAnswer(const Api& api, const Options& options, bool streams, int n, const ToolUse& tools)
      : Answer(new_id("chatcmpl-"), streams, 1),
        api_(api),
        options_(options),
        logprobs_(api, options.top, options.as_ids),
        created_(unix_seconds()) {
    for (int i = 0; i < n; ++i) {
      choices_.emplace_back();
      choices_.back().parser = tools.parser(api);
    }
  }

 private:
  struct Choice {
    bool role_sent = false;
    std::optional<ToolCallParser> parser;
    std::string content;
    std::vector<ToolCall> calls;
    OrderedJson logprobs = OrderedJson::array();
    OrderedJson finish_reason, stop_reason;
  };

  OrderedJson head(const char* object) const {
    OrderedJson json;
    json["id"] = id();
    json["object"] = object;
    json["created"] = created_;
    json["model"] = api_.name();
    json["system_fingerprint"] = nullptr;
    return json;
  }

  void add(size_t, Output& output) override {
    if (!output.prompt_logprobs.empty()) prompt_positions_ = std::move(output.prompt_logprobs);
    const auto index = static_cast<size_t>(output.index);
    Choice& choice = choices_[index];
    ToolText text;
    if (choice.parser) {
      text = choice.parser->push(output.text);
      if (output.finish_reason) {
        ToolText rest = choice.parser->finish();
        text.content += rest.content;
        text.calls.insert(text.calls.end(), rest.calls.begin(), rest.calls.end());
      }
    } else {
      text.content = std::move(output.text);
    }
    OrderedJson logprobs = options_.logprobs ? logprobs_.content(output.logprobs) : nullptr;
    if (output.finish_reason) {
      const bool called = choice.parser && choice.parser->calls() > 0;
      choice.finish_reason = called && *output.finish_reason == FinishReason::kStop
                                 ? "tool_calls"
                                 : name_of(*output.finish_reason);
      choice.stop_reason = stop_reason_json(api_, output);
    }
    if (streams()) {
      send_chunks(index, text, std::move(logprobs));
    } else {
      collect(choice, std::move(text), std::move(logprobs));
    }
  }

  static void collect(Choice& choice, ToolText text, OrderedJson logprobs) {
    choice.content += text.content;
    for (ToolDelta& delta : text.calls) {
      const auto call = static_cast<size_t>(delta.index);
      if (call == choice.calls.size()) {
        choice.calls.push_back({new_id("call_"), std::move(delta.name), ""});
      }
      choice.calls[call].arguments += delta.arguments;
    }
    if (logprobs.is_array()) {
      for (OrderedJson& entry : logprobs) choice.logprobs.push_back(std::move(entry));
    }
  }

  void send_chunk(size_t index, OrderedJson delta, OrderedJson logprobs,
                  const OrderedJson& finish_reason = nullptr,
                  const OrderedJson& stop_reason = nullptr) {
    OrderedJson choice;
    choice["index"] = index;
    choice["delta"] = std::move(delta);
    choice["logprobs"] = logprobs.is_array() && !logprobs.empty()
                             ? OrderedJson{{"content", std::move(logprobs)}, {"refusal", nullptr}}
                             : OrderedJson(nullptr);
    choice["finish_reason"] = finish_reason;
    if (!finish_reason.is_null()) choice["stop_reason"] = stop_reason;
    OrderedJson chunk = head("chat.completion.chunk");
    chunk["choices"] = OrderedJson::array({std::move(choice)});
    if (options_.stream.continuous_usage) chunk["usage"] = usage_json(usage());
    send_event(chunk);
  }

  void send_chunks(size_t index, const ToolText& text, OrderedJson logprobs) {
    Choice& choice = choices_[index];
    if (!choice.role_sent) {
      choice.role_sent = true;
      send_chunk(index, {{"role", "assistant"}, {"content", ""}}, nullptr);
    }
    const bool has_logprobs = logprobs.is_array() && !logprobs.empty();
    if (!text.content.empty() || (has_logprobs && text.calls.empty())) {
      send_chunk(index, {{"content", text.content}}, std::exchange(logprobs, nullptr));
    }
    for (const ToolDelta& delta : text.calls) {
      OrderedJson call;
      call["index"] = delta.index;
      if (!delta.name.empty()) {
        call["id"] = new_id("call_");
        call["type"] = "function";
        call["function"]["name"] = delta.name;
      }
      call["function"]["arguments"] = delta.arguments;
      send_chunk(index, {{"tool_calls", OrderedJson::array({std::move(call)})}},
                 std::exchange(logprobs, nullptr));
    }
    if (!choice.finish_reason.is_null()) {
      send_chunk(index, OrderedJson::object(), nullptr, choice.finish_reason, choice.stop_reason);
    }
  }

  OrderedJson choice_json(size_t index, const Choice& choice) const {
    OrderedJson message;
    message["role"] = "assistant";
    const bool silent = choice.content.empty() && !choice.calls.empty();
    message["content"] = silent ? OrderedJson(nullptr) : OrderedJson(choice.content);
    message["refusal"] = nullptr;
    if (!choice.calls.empty()) message["tool_calls"] = OrderedJson::array();
    for (const ToolCall& call : choice.calls) {
      message["tool_calls"].push_back(
          {{"id", call.id},
           {"type", "function"},
           {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    }
    OrderedJson json;
    json["index"] = index;
    json["message"] = std::move(message);
    json["logprobs"] = options_.logprobs
                           ? OrderedJson{{"content", choice.logprobs}, {"refusal", nullptr}}
                           : OrderedJson(nullptr);
    json["finish_reason"] = choice.finish_reason;
    json["stop_reason"] = choice.stop_reason;
    return json;
  }

  void finish() override {
    if (streams()) {
      if (options_.stream.include_usage) {
        OrderedJson chunk = head("chat.completion.chunk");
        chunk["choices"] = OrderedJson::array();
        chunk["usage"] = usage_json(usage());
        send_event(chunk);
      }
      send_done();
      return end_stream();
    }
    OrderedJson json = head("chat.completion");
    json["choices"] = OrderedJson::array();
    for (size_t i = 0; i < choices_.size(); ++i) {
      json["choices"].push_back(choice_json(i, choices_[i]));
    }
    json["usage"] = usage_json(usage());
    if (options_.prompt_logprobs) {
      json["prompt_logprobs"] = prompt_logprobs_json(api_, prompt_positions_);
    }
    send_json(json);
  }

  const Api& api_;
  Options options_;
  ChatLogprobs logprobs_;
  int64_t created_;
  std::vector<PositionLogprobs> prompt_positions_;
  std::vector<Choice> choices_;
};

Options read_options(const OrderedJson& body, bool streams, Request& request) {
  Options options;
  options.stream = read_stream_options(body, streams);
  options.logprobs = boolean(body, "logprobs", false);
  options.as_ids = boolean(body, "return_tokens_as_token_ids", false);
  const auto top = integer(body, "top_logprobs");
  if (top && !options.logprobs) {
    throw ApiError(400, "'top_logprobs' needs 'logprobs' to be true.", "top_logprobs");
  }
  options.top = static_cast<int>(top.value_or(0));
  if (options.logprobs) request.logprobs = options.top;
  if (const auto prompt = integer(body, "prompt_logprobs")) {
    options.prompt_logprobs = true;
    request.prompt_logprobs = static_cast<int>(*prompt);
  }
  return options;
}

}  // namespace

std::span<const Field> chat_fields() { return kFields; }

Prepared prepare_chat(const Api& api, const OrderedJson& body) {
  check_fields(body, kFields);
  check_fields(body, sampling_fields());
  check_model(api, body);
  const bool streams = boolean(body, "stream", false);
  Request request;
  read_sampling(api, body, request);
  const Options options = read_options(body, streams, request);
  const auto max_tokens = integer(body, "max_completion_tokens");
  request.max_tokens = max_tokens ? *max_tokens : integer(body, "max_tokens").value_or(-1);

  Conversation conversation = read_conversation(body);
  const ToolUse tools = read_tool_use(api, body, conversation);
  request.constraint = tools.constraint;
  if (const auto guide = read_guide(body)) {
    if (tools.constraint != nullptr) {
      throw ApiError(400, "An answer cannot be both a call of a tool and of '" + guide->param + "'.",
                     guide->param);
    }
    request.constraint = api.guides.compile(*guide);
  }
  // Mistral's marker of a call is a special token.
  if (tools.calls && api.tool_style == ToolStyle::kMistral) request.skip_special_tokens = false;
  request.prompt = encode(api, conversation);
  fit_prompt(api, body, "messages", request);

  Prepared prepared;
  prepared.answer = std::make_shared<ChatAnswer>(api, options, streams, request.n, tools);
  prepared.requests.push_back(std::move(request));
  return prepared;
}

}  // namespace lowbit::server

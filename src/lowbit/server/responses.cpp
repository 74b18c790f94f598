#include "lowbit/server/responses.h"

#include "lowbit/base/check.h"
#include "lowbit/server/chat_prompt.h"
#include "lowbit/server/logprobs.h"
#include "lowbit/server/sampling.h"
#include "lowbit/server/tool_use.h"

namespace lowbit::server {

namespace {

constexpr Field kFields[] = {
    {"model", FieldKind::kString},
    {"input", FieldKind::kAny, 0, 0, "A string, or an array of items"},
    {"instructions", FieldKind::kString},
    {"max_output_tokens", FieldKind::kInteger, 1, 1 << 24},
    {"stream", FieldKind::kBoolean},
    {"tools", FieldKind::kArray},
    {"tool_choice", FieldKind::kAny},
    {"parallel_tool_calls", FieldKind::kBoolean},
    {"text", FieldKind::kObject},
    {"top_logprobs", FieldKind::kInteger, 0, 20},
    {"include", FieldKind::kArray},
    {"store", FieldKind::kBoolean},
    {"background", FieldKind::kBoolean},
    {"metadata", FieldKind::kObject},
    {"chat_template_kwargs", FieldKind::kObject},
};

// One item of the output: text, or a call.
struct Item {
  bool is_call = false;
  std::string id, call_id, name;
  std::string text;  // or arguments
  OrderedJson logprobs = OrderedJson::array();
};

class ResponseAnswer final : public Answer {
 public:
  // echoed: what the response object repeats of the request.
  ResponseAnswer(const Api& api, OrderedJson echoed, bool streams, bool logprobs, int top,
                 const ToolUse& tools)
      : Answer(new_id("resp_"), streams, 1),
        api_(api),
        echoed_(std::move(echoed)),
        parser_(tools.parser(api)),
        has_logprobs_(logprobs),
        logprobs_(api, top, false),
        created_(unix_seconds()) {}

 private:
  OrderedJson part_json(const Item& item) const {
    return {{"type", "output_text"},
            {"text", item.text},
            {"annotations", OrderedJson::array()},
            {"logprobs", item.logprobs}};
  }

  OrderedJson item_json(const Item& item, const char* status) const {
    if (item.is_call) {
      return {{"type", "function_call"}, {"id", item.id},          {"call_id", item.call_id},
              {"name", item.name},       {"arguments", item.text}, {"status", status}};
    }
    OrderedJson content = OrderedJson::array();
    if (std::string_view(status) != "in_progress") content.push_back(part_json(item));
    return {{"type", "message"},
            {"id", item.id},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }

  OrderedJson response_json(const char* status) const {
    OrderedJson json;
    json["id"] = id();
    json["object"] = "response";
    json["created_at"] = created_;
    json["status"] = status;
    json["error"] = nullptr;
    const bool cut = std::string_view(status) == "incomplete";
    json["incomplete_details"] =
        cut ? OrderedJson{{"reason", "max_output_tokens"}} : OrderedJson(nullptr);
    json["model"] = api_.name();
    for (const auto& [name, value] : echoed_.items()) json[name] = value;
    json["output"] = OrderedJson::array();
    const bool running = std::string_view(status) == "in_progress";
    if (!running) {
      for (const Item& item : items_) json["output"].push_back(item_json(item, status));
    }
    const int64_t in = usage().prompt_tokens, out = usage().completion_tokens;
    json["usage"] =
        running ? OrderedJson(nullptr)
                : OrderedJson{{"input_tokens", in},
                              {"input_tokens_details", {{"cached_tokens", usage().cached_tokens}}},
                              {"output_tokens", out},
                              {"output_tokens_details", {{"reasoning_tokens", 0}}},
                              {"total_tokens", in + out}};
    return json;
  }

  void emit(const char* type, OrderedJson members) {
    if (!streams()) return;
    OrderedJson event = {{"type", type}, {"sequence_number", sequence_++}};
    for (auto& [name, value] : members.items()) event[name] = std::move(value);
    send_event(event, type);
  }

  size_t last() const { return items_.size() - 1; }

  void open(Item item) {
    close();
    items_.push_back(std::move(item));
    open_ = true;
    const Item& opened = items_.back();
    emit("response.output_item.added",
         {{"output_index", last()}, {"item", item_json(opened, "in_progress")}});
    if (opened.is_call) return;
    emit("response.content_part.added", {{"item_id", opened.id},
                                         {"output_index", last()},
                                         {"content_index", 0},
                                         {"part", part_json(opened)}});
  }

  void close() {
    if (!open_) return;
    open_ = false;
    const Item& item = items_.back();
    if (item.is_call) {
      emit("response.function_call_arguments.done", {{"item_id", item.id},
                                                     {"output_index", last()},
                                                     {"name", item.name},
                                                     {"arguments", item.text}});
    } else {
      emit("response.output_text.done", {{"item_id", item.id},
                                         {"output_index", last()},
                                         {"content_index", 0},
                                         {"text", item.text},
                                         {"logprobs", item.logprobs}});
      emit("response.content_part.done", {{"item_id", item.id},
                                          {"output_index", last()},
                                          {"content_index", 0},
                                          {"part", part_json(item)}});
    }
    emit("response.output_item.done",
         {{"output_index", last()}, {"item", item_json(item, "completed")}});
  }

  void add_text(const std::string& text, OrderedJson logprobs) {
    if (text.empty() && logprobs.empty()) return;
    if (!open_ || items_.back().is_call) {
      Item item;
      item.id = new_id("msg_");
      open(std::move(item));
    }
    Item& item = items_.back();
    item.text += text;
    for (const OrderedJson& entry : logprobs) item.logprobs.push_back(entry);
    emit("response.output_text.delta", {{"item_id", item.id},
                                        {"output_index", last()},
                                        {"content_index", 0},
                                        {"delta", text},
                                        {"logprobs", std::move(logprobs)}});
  }

  void add_call(const ToolDelta& delta) {
    if (!delta.name.empty()) {
      Item item;
      item.is_call = true;
      item.id = new_id("fc_");
      item.call_id = new_id("call_");
      item.name = delta.name;
      open(std::move(item));
    }
    Item& item = items_.back();
    item.text += delta.arguments;
    if (delta.arguments.empty()) return;
    emit("response.function_call_arguments.delta",
         {{"item_id", item.id}, {"output_index", last()}, {"delta", delta.arguments}});
  }

  void add(size_t, Output& output) override {
    if (sequence_ == 0) {
      emit("response.created", {{"response", response_json("in_progress")}});
      emit("response.in_progress", {{"response", response_json("in_progress")}});
    }
    ToolText text;
    if (parser_) {
      text = parser_->push(output.text);
    } else {
      text.content = output.text;
    }
    add_text(text.content,
             has_logprobs_ ? logprobs_.content(output.logprobs) : OrderedJson::array());
    for (const ToolDelta& delta : text.calls) add_call(delta);
    if (output.finish_reason) {
      cut_ = *output.finish_reason == FinishReason::kLength;
      if (parser_) {
        text = parser_->finish();
        add_text(text.content, OrderedJson::array());
        for (const ToolDelta& delta : text.calls) add_call(delta);
      }
    }
  }

  void finish() override {
    close();
    const char* status = cut_ ? "incomplete" : "completed";
    if (!streams()) return send_json(response_json(status));
    emit(cut_ ? "response.incomplete" : "response.completed",
         {{"response", response_json(status)}});
    end_stream();
  }

  const Api& api_;
  OrderedJson echoed_;
  std::optional<ToolCallParser> parser_;
  bool has_logprobs_;
  ChatLogprobs logprobs_;
  int64_t created_;
  std::vector<Item> items_;
  bool open_ = false;  // the last item can still grow
  bool cut_ = false;
  int64_t sequence_ = 0;
};

void refuse_stateful(const OrderedJson& body) {
  for (const char* name : {"previous_response_id", "conversation", "prompt"}) {
    if (member(body, name) == nullptr) continue;
    throw ApiError(400,
                   concat("'", name, "' is not supported: this server stores nothing. Send the "
                          "whole conversation in 'input'."),
                   name, "unsupported_parameter");
  }
  if (boolean(body, "background", false)) {
    throw ApiError(400, "'background' is not supported.", "background", "unsupported_parameter");
  }
}

// {"type": "function", "name", ...} as chat has it: {"type": "function", "function": {"name", ...}}.
OrderedJson chat_tools(const OrderedJson& tools) {
  OrderedJson result = OrderedJson::array();
  for (const OrderedJson& tool : tools) {
    if (!tool.is_object() || !tool.contains("type") || tool["type"] != "function") {
      throw ApiError(400, "'tools': only functions are supported.", "tools", "invalid_value");
    }
    OrderedJson function = OrderedJson::object();
    for (const char* name : {"name", "description", "parameters"}) {
      if (const OrderedJson* value = member(tool, name)) function[name] = *value;
    }
    result.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  check_tools(result);
  return result;
}

std::optional<Guide> text_guide(const OrderedJson& body) {
  const OrderedJson* holder = member(body, "text");
  const OrderedJson* format = holder == nullptr ? nullptr : member(*holder, "format");
  if (format == nullptr) return read_guide(body);
  const OrderedJson* type = format->is_object() ? member(*format, "type") : nullptr;
  if (type != nullptr && *type == "json_schema") return json_schema_guide(*format, "text.format");
  return read_guide({{"response_format", *format}});
}

bool wants_logprobs(const OrderedJson& body) {
  if (member(body, "top_logprobs") != nullptr) return true;
  const OrderedJson* include = member(body, "include");
  if (include == nullptr) return false;
  for (const OrderedJson& entry : *include) {
    if (entry == "message.output_text.logprobs") return true;
  }
  return false;
}

OrderedJson echoed_members(const OrderedJson& body, const Request& request) {
  OrderedJson echoed;
  const auto given = [&](const char* name, const OrderedJson& fallback) {
    const OrderedJson* value = member(body, name);
    echoed[name] = value == nullptr ? fallback : *value;
  };
  given("instructions", nullptr);
  given("max_output_tokens", nullptr);
  given("metadata", OrderedJson::object());
  given("parallel_tool_calls", true);
  echoed["previous_response_id"] = nullptr;
  echoed["reasoning"] = {{"effort", nullptr}, {"summary", nullptr}};
  echoed["store"] = false;
  echoed["temperature"] = request.sampling.temperature;
  given("text", {{"format", {{"type", "text"}}}});
  given("tool_choice", "auto");
  given("tools", OrderedJson::array());
  echoed["top_p"] = request.sampling.top_p;
  echoed["truncation"] = "disabled";
  given("user", nullptr);
  return echoed;
}

}  // namespace

std::span<const Field> responses_fields() { return kFields; }

Prepared prepare_response(const Api& api, const OrderedJson& body) {
  check_fields(body, kFields);
  check_fields(body, sampling_fields());
  check_model(api, body);
  refuse_stateful(body);
  Request request;
  read_sampling(api, body, request);
  request.n = 1;
  request.max_tokens = integer(body, "max_output_tokens").value_or(-1);
  const bool logprobs = wants_logprobs(body);
  const int top = static_cast<int>(integer(body, "top_logprobs").value_or(0));
  if (logprobs) request.logprobs = top;

  OrderedJson chat = {{"messages", messages_of_input(body)}};
  if (const OrderedJson* tools = member(body, "tools")) chat["tools"] = chat_tools(*tools);
  if (const OrderedJson* extra = member(body, "chat_template_kwargs")) {
    chat["chat_template_kwargs"] = *extra;
  }
  Conversation conversation = read_conversation(chat);
  const ToolUse tools = read_tool_use(api, body, conversation);
  request.constraint = tools.constraint;
  if (const auto guide = text_guide(body)) request.constraint = api.guides.compile(*guide);
  if (tools.calls && api.tool_style == ToolStyle::kMistral) request.skip_special_tokens = false;
  request.prompt = encode(api, conversation);
  fit_prompt(api, body, "input", request);

  Prepared prepared;
  prepared.answer = std::make_shared<ResponseAnswer>(
      api, echoed_members(body, request), boolean(body, "stream", false), logprobs, top, tools);
  prepared.requests.push_back(std::move(request));
  return prepared;
}

}  // namespace lowbit::server

#include "lowbit/server/answer.h"

#include "lowbit/server/fields.h"

namespace lowbit::server {

Answer::Answer(std::string id, bool streams, size_t parts)
    : id_(std::move(id)), streams_(streams), parts_left_(parts), part_usage_(parts) {}

bool Answer::on_output(size_t part, Output&& output) {
  if (over_) return true;
  if (output.finish_reason == FinishReason::kError) {
    fail({500, "the engine could not go on: " + output.error});
    return true;
  }
  if (output.finish_reason == FinishReason::kCancelled) {
    fail({503, "the server ended this request", "", "cancelled"});
    return true;
  }
  const Usage& before = part_usage_[part];
  usage_.prompt_tokens += output.usage.prompt_tokens - before.prompt_tokens;
  usage_.cached_tokens += output.usage.cached_tokens - before.cached_tokens;
  usage_.completion_tokens += output.usage.completion_tokens - before.completion_tokens;
  part_usage_[part] = output.usage;
  add(part, output);
  if (output.last && --parts_left_ == 0) {
    finish();
    over_ = true;
  }
  return over_;
}

void Answer::fail(const ApiError& error) {
  if (over_) return;
  over_ = true;
  if (!begun_) {
    reply_->send(error_response(error));
    return;
  }
  // No [DONE]: a client must not take the stream for whole.
  reply_->write("event: error\ndata: " + error_json(error) + "\n\n");
  reply_->end();
}

void Answer::begin_stream() {
  if (begun_) return;
  begun_ = true;
  HttpResponse head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.fields = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  reply_->begin(std::move(head));
}

void Answer::keep_awake() {
  if (!streams_ || over_) return;
  begin_stream();
  reply_->write(": ping\n\n");
}

void Answer::send_event(const OrderedJson& data, const char* name) {
  begin_stream();
  std::string event;
  if (*name != '\0') event.append("event: ").append(name).append("\n");
  event.append("data: ").append(dump_json(data)).append("\n\n");
  reply_->write(event);
}

void Answer::send_done() {
  begin_stream();
  reply_->write("data: [DONE]\n\n");
}

void Answer::end_stream() { reply_->end(); }

void Answer::send_json(const OrderedJson& body) {
  HttpResponse response;
  response.body = dump_json(body);
  reply_->send(std::move(response));
}

OrderedJson usage_json(const Usage& usage) {
  OrderedJson json;
  json["prompt_tokens"] = usage.prompt_tokens;
  json["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  json["completion_tokens"] = usage.completion_tokens;
  json["prompt_tokens_details"] = {{"cached_tokens", usage.cached_tokens}};
  return json;
}

StreamOptions read_stream_options(const OrderedJson& body, bool streams) {
  const OrderedJson* options = member(body, "stream_options");
  if (options == nullptr) return {};
  if (!streams) {
    throw ApiError(400, "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                   "stream_options");
  }
  constexpr Field kFields[] = {{"include_usage", FieldKind::kBoolean},
                               {"continuous_usage_stats", FieldKind::kBoolean}};
  check_fields(*options, kFields);
  StreamOptions result;
  result.continuous_usage = boolean(*options, "continuous_usage_stats", false);
  result.include_usage = boolean(*options, "include_usage", false);
  return result;
}

}  // namespace lowbit::server

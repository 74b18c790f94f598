#include "lowbit/server/completions.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/server/logprobs.h"
#include "lowbit/server/sampling.h"

namespace lowbit::server {

namespace {

constexpr Field kFields[] = {
    {"model", FieldKind::kString},
    {"prompt", FieldKind::kAny, 0, 0, "A string, token ids, or an array of either"},
    {"max_tokens", FieldKind::kInteger, 0, 1 << 24},
    {"best_of", FieldKind::kInteger, 0, 128, "Answers to run; the best n are returned"},
    {"echo", FieldKind::kBoolean, 0, 0, "Put the prompt before the answer"},
    {"logprobs", FieldKind::kInteger, 0, 20},
    {"prompt_logprobs", FieldKind::kInteger, 0, 20},
    {"stream", FieldKind::kBoolean},
    {"stream_options", FieldKind::kObject},
    {"suffix", FieldKind::kString},
    {"add_special_tokens", FieldKind::kBoolean},
    {"return_tokens_as_token_ids", FieldKind::kBoolean},
};

struct Options {
  bool echo = false;
  bool logprobs = false;
  int top = 0;
  bool prompt_logprobs = false;  // vLLM's extra, not echo's
  bool as_ids = false;
  StreamOptions stream;
};

class CompletionAnswer final : public Answer {
 public:
  CompletionAnswer(const Api& api, const Options& options, bool streams, int n,
                   std::vector<std::string> prompts)
      : Answer(new_id("cmpl-"), streams, prompts.size()),
        api_(api),
        options_(options),
        created_(unix_seconds()),
        n_(n),
        prompts_(std::move(prompts)) {
    for (size_t i = 0; i < prompts_.size() * static_cast<size_t>(n); ++i) {
      choices_.emplace_back(CompletionLogprobs(api, options.top, options.as_ids));
    }
  }

 private:
  struct Choice {
    explicit Choice(CompletionLogprobs shape) : logprobs(std::move(shape)) {}
    bool started = false;
    std::string text;
    std::vector<PositionLogprobs> positions;
    CompletionLogprobs logprobs;
    OrderedJson finish_reason, stop_reason;
  };

  OrderedJson head() const {
    OrderedJson json;
    json["id"] = id();
    json["object"] = "text_completion";
    json["created"] = created_;
    json["model"] = api_.name();
    return json;
  }

  OrderedJson choice_json(size_t index, Choice& choice) {
    OrderedJson json;
    json["index"] = index;
    json["text"] = choice.text;
    json["logprobs"] =
        options_.logprobs ? choice.logprobs.take(choice.positions) : OrderedJson(nullptr);
    json["finish_reason"] = choice.finish_reason;
    json["stop_reason"] = choice.stop_reason;
    return json;
  }

  void add(size_t part, Output& output) override {
    if (!output.prompt_logprobs.empty() && prompt_positions_.size() <= part) {
      prompt_positions_.resize(prompts_.size());
    }
    if (!output.prompt_logprobs.empty()) {
      prompt_positions_[part] = std::move(output.prompt_logprobs);
    }
    const size_t index = part * static_cast<size_t>(n_) + static_cast<size_t>(output.index);
    Choice& choice = choices_[index];
    if (options_.echo && !choice.started) {
      choice.text = prompts_[part];
      if (part < prompt_positions_.size()) choice.positions = prompt_positions_[part];
    }
    choice.started = true;
    choice.text += output.text;
    choice.positions.insert(choice.positions.end(),
                            std::make_move_iterator(output.logprobs.begin()),
                            std::make_move_iterator(output.logprobs.end()));
    if (output.finish_reason) {
      choice.finish_reason = name_of(*output.finish_reason);
      choice.stop_reason = stop_reason_json(api_, output);
    }
    if (streams()) send_chunk(part, index, choice);
  }

  void send_chunk(size_t part, size_t index, Choice& choice) {
    const bool news = !choice.text.empty() || !choice.finish_reason.is_null() ||
                      (options_.logprobs && !choice.positions.empty());
    if (!news) return;
    OrderedJson chunk = head();
    OrderedJson json = choice_json(index, choice);
    if (options_.prompt_logprobs && !choice.finish_reason.is_null() &&
        part < prompt_positions_.size()) {
      json["prompt_logprobs"] = prompt_logprobs_json(api_, prompt_positions_[part]);
    }
    chunk["choices"] = OrderedJson::array({std::move(json)});
    if (options_.stream.continuous_usage) chunk["usage"] = usage_json(usage());
    send_event(chunk);
    choice.text.clear();
    choice.positions.clear();
  }

  void finish() override {
    if (streams()) {
      if (options_.stream.include_usage) {
        OrderedJson chunk = head();
        chunk["choices"] = OrderedJson::array();
        chunk["usage"] = usage_json(usage());
        send_event(chunk);
      }
      send_done();
      return end_stream();
    }
    OrderedJson json = head();
    json["choices"] = OrderedJson::array();
    for (size_t i = 0; i < choices_.size(); ++i) {
      OrderedJson choice = choice_json(i, choices_[i]);
      const size_t part = i / static_cast<size_t>(n_);
      choice["prompt_logprobs"] =
          options_.prompt_logprobs && part < prompt_positions_.size()
              ? prompt_logprobs_json(api_, prompt_positions_[part])
              : OrderedJson(nullptr);
      json["choices"].push_back(std::move(choice));
    }
    json["usage"] = usage_json(usage());
    send_json(json);
  }

  const Api& api_;
  Options options_;
  int64_t created_;
  int n_;
  std::vector<std::string> prompts_;  // text, if it is to be echoed
  std::vector<std::vector<PositionLogprobs>> prompt_positions_;
  std::vector<Choice> choices_;
};

[[noreturn]] void bad_prompt() {
  throw ApiError(400,
                 "'prompt' must be a string, an array of strings, an array of token ids, or an "
                 "array of those.",
                 "prompt", "invalid_type");
}

std::vector<int32_t> prompt_ids(const Api& api, const OrderedJson& ids) {
  const int64_t vocab_size = api.engine.model().config().vocab_size;
  std::vector<int32_t> result;
  for (const OrderedJson& id : ids) {
    if (!id.is_number_integer()) bad_prompt();
    const auto value = id.get<int64_t>();
    if (value < 0 || value >= vocab_size) {
      throw ApiError(400, concat("token id ", value, " is not in the vocabulary of ", vocab_size),
                     "prompt");
    }
    result.push_back(static_cast<int32_t>(value));
  }
  return result;
}

// All prompts as token ids.
std::vector<std::vector<int32_t>> read_prompts(const Api& api, const OrderedJson& body) {
  const OrderedJson* prompt = member(body, "prompt");
  if (prompt == nullptr) {
    throw ApiError(400, "Missing required parameter: 'prompt'.", "prompt",
                   "missing_required_parameter");
  }
  EncodeOptions options;
  options.add_special_tokens = boolean(body, "add_special_tokens", true);
  const auto ids_of = [&](const OrderedJson& one) {
    if (one.is_string()) return api.tokenizer().encode(one.get<std::string>(), options);
    if (!one.is_array()) bad_prompt();
    return prompt_ids(api, one);
  };
  const bool many = prompt->is_array() && !prompt->empty() && !prompt->front().is_number();
  if (!many) return {ids_of(*prompt)};
  if (prompt->size() > static_cast<size_t>(api.max_choices) * 8) {
    throw ApiError(400, concat("'prompt' has more than ", api.max_choices * 8, " prompts."),
                   "prompt", "array_above_max_length");
  }
  std::vector<std::vector<int32_t>> prompts;
  for (const OrderedJson& one : *prompt) prompts.push_back(ids_of(one));
  return prompts;
}

Options read_options(const OrderedJson& body, bool streams, Request& request) {
  Options options;
  options.stream = read_stream_options(body, streams);
  options.echo = boolean(body, "echo", false);
  options.as_ids = boolean(body, "return_tokens_as_token_ids", false);
  if (const auto top = integer(body, "logprobs")) {
    options.logprobs = true;
    options.top = static_cast<int>(*top);
    request.logprobs = options.top;
    if (options.echo) request.prompt_logprobs = options.top;
  }
  if (const auto top = integer(body, "prompt_logprobs")) {
    options.prompt_logprobs = true;
    request.prompt_logprobs = std::max(request.prompt_logprobs, static_cast<int>(*top));
  }
  return options;
}

void read_best_of(const Api& api, const OrderedJson& body, bool streams, Request& request) {
  request.best_of = static_cast<int>(integer(body, "best_of").value_or(0));
  if (request.best_of == 0) return;
  if (request.best_of < request.n) {
    throw ApiError(400, "'best_of' must be at least 'n'.", "best_of");
  }
  if (request.best_of > api.max_choices) {
    throw ApiError(400, concat("'best_of' is above the maximum of ", api.max_choices, "."),
                   "best_of", "integer_above_max_value");
  }
  if (streams && request.best_of > request.n) {
    throw ApiError(400, "'best_of' above 'n' cannot be streamed.", "best_of");
  }
}

}  // namespace

std::span<const Field> completion_fields() { return kFields; }

Prepared prepare_completion(const Api& api, const OrderedJson& body) {
  check_fields(body, kFields);
  check_fields(body, sampling_fields());
  check_model(api, body);
  if (!text(body, "suffix").empty()) {
    throw ApiError(400, "'suffix' is not supported.", "suffix", "unsupported_parameter");
  }
  const bool streams = boolean(body, "stream", false);
  Request shared;
  read_sampling(api, body, shared);
  read_best_of(api, body, streams, shared);
  const Options options = read_options(body, streams, shared);
  shared.max_tokens = integer(body, "max_tokens").value_or(16);
  if (shared.max_tokens == 0 && !options.echo) {
    throw ApiError(400, "'max_tokens' must be at least 1, unless 'echo' is set.", "max_tokens",
                   "integer_below_min_value");
  }
  if (const auto guide = read_guide(body)) shared.constraint = api.guides.compile(*guide);

  Prepared prepared;
  std::vector<std::string> texts;
  for (std::vector<int32_t>& ids : read_prompts(api, body)) {
    Request request = shared;
    request.prompt = std::move(ids);
    fit_prompt(api, body, "prompt", request);
    texts.push_back(options.echo ? api.tokenizer().decode(request.prompt, true) : "");
    prepared.requests.push_back(std::move(request));
  }
  prepared.answer =
      std::make_shared<CompletionAnswer>(api, options, streams, shared.n, std::move(texts));
  return prepared;
}

}  // namespace lowbit::server

#include "lowbit/server/sampling.h"

#include <array>
#include <charconv>
#include <random>

#include "lowbit/base/check.h"
#include "lowbit/server/api_error.h"

namespace lowbit::server {

namespace {

constexpr size_t kStops = 16, kStopBytes = 1'024, kStopTokenIds = 256;
constexpr double kLargestSeed = 9223372036854774784.0;  // the largest double below 2^63

constexpr Field kFields[] = {
    {"temperature", FieldKind::kNumber, 0, 100, "0 is greedy"},
    {"top_p", FieldKind::kNumber, 0, 1, "Nucleus sampling"},
    {"top_k", FieldKind::kInteger, -1, 1 << 30, "Keep the k likeliest tokens; 0 or -1: all"},
    {"min_p", FieldKind::kNumber, 0, 1, "Least probability relative to the likeliest token"},
    {"typical_p", FieldKind::kNumber, 0, 1, "Locally typical sampling"},
    {"presence_penalty", FieldKind::kNumber, -2, 2},
    {"frequency_penalty", FieldKind::kNumber, -2, 2},
    {"repetition_penalty", FieldKind::kNumber, 0.01, 100, "Divides logits of tokens seen so far"},
    {"seed", FieldKind::kInteger, -kLargestSeed, kLargestSeed, "Same seed, same answer"},
    {"stop", FieldKind::kStrings},
    {"stop_token_ids", FieldKind::kArray},
    {"include_stop_str_in_output", FieldKind::kBoolean},
    {"ignore_eos", FieldKind::kBoolean},
    {"min_tokens", FieldKind::kInteger, 0, 1 << 24},
    {"skip_special_tokens", FieldKind::kBoolean},
    {"spaces_between_special_tokens", FieldKind::kBoolean},
    {"logit_bias", FieldKind::kObject, 0, 0, "Token id to a bias in -100 to 100"},
    {"n", FieldKind::kInteger, 1, 128, "Answers to one prompt"},
    {"truncate_prompt_tokens", FieldKind::kInteger, -1, 1 << 24},
    {"priority", FieldKind::kInteger, -(1 << 30), 1 << 30, "Lower is served first"},
    {"cache_salt", FieldKind::kString},
    {"user", FieldKind::kString},
    {"response_format", FieldKind::kObject},
    {"structured_outputs", FieldKind::kObject},
    {"guided_json", FieldKind::kAny},
    {"guided_regex", FieldKind::kString},
    {"guided_grammar", FieldKind::kString},
    {"guided_choice", FieldKind::kArray},
    {"use_beam_search", FieldKind::kBoolean},
};

void refuse_unsupported(const OrderedJson& body) {
  for (const char* name : {"logits_processors", "bad_words", "allowed_token_ids", "prompt_embeds"}) {
    const OrderedJson* value = member(body, name);
    if (value != nullptr && !(value->is_array() && value->empty())) {
      throw ApiError(400, concat("'", name, "' is not supported."), name, "unsupported_parameter");
    }
  }
  if (boolean(body, "use_beam_search", false)) {
    throw ApiError(400, "Beam search is not supported.", "use_beam_search",
                   "unsupported_parameter");
  }
}

int32_t token_id(const Api& api, int64_t id, const char* param) {
  const int64_t vocab_size = api.engine.model().config().vocab_size;
  if (id < 0 || id >= vocab_size) {
    throw ApiError(400, concat("token id ", id, " is not in the vocabulary of ", vocab_size),
                   param);
  }
  return static_cast<int32_t>(id);
}

std::vector<std::pair<int32_t, float>> read_bias(const Api& api, const OrderedJson& biases) {
  std::vector<std::pair<int32_t, float>> result;
  for (const auto& [key, value] : biases.items()) {
    int64_t id = -1;
    const auto end = key.data() + key.size();
    const auto parsed = std::from_chars(key.data(), end, id);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
      throw ApiError(400, "'logit_bias' must map token ids to numbers.", "logit_bias");
    }
    const double bias = value.is_number() ? value.get<double>() : 1000;
    if (!(bias >= -100 && bias <= 100)) {
      throw ApiError(400, "'logit_bias' values must be in -100 to 100.", "logit_bias");
    }
    result.emplace_back(token_id(api, id, "logit_bias"), static_cast<float>(bias));
  }
  return result;
}

std::vector<std::string> read_stops(const OrderedJson& body) {
  std::vector<std::string> stops = strings(body, "stop");
  std::erase(stops, "");
  if (stops.size() > kStops) {
    throw ApiError(400, concat("'stop' has more than ", kStops, " strings."), "stop",
                   "array_above_max_length");
  }
  for (const std::string& stop : stops) {
    if (stop.size() > kStopBytes) {
      throw ApiError(400, concat("A stop string is longer than ", kStopBytes, " bytes."), "stop",
                     "string_above_max_length");
    }
  }
  return stops;
}

uint64_t random_seed() {
  thread_local std::mt19937_64 random{std::random_device()()};
  return random();
}

}  // namespace

std::span<const Field> sampling_fields() { return kFields; }

void read_sampling(const Api& api, const OrderedJson& body, Request& request) {
  refuse_unsupported(body);
  SamplingParams& params = request.sampling;
  params = api.defaults;
  const auto take = [&](const char* name, float& value) {
    if (const auto given = number(body, name)) value = static_cast<float>(*given);
  };
  take("temperature", params.temperature);
  take("top_p", params.top_p);
  take("min_p", params.min_p);
  take("typical_p", params.typical_p);
  take("presence_penalty", params.presence_penalty);
  take("frequency_penalty", params.frequency_penalty);
  take("repetition_penalty", params.repeat_penalty);
  if (const auto top_k = integer(body, "top_k")) {
    params.top_k = static_cast<int>(std::max<int64_t>(*top_k, 0));
  }
  const auto seed = integer(body, "seed");
  params.seed = seed ? static_cast<uint64_t>(*seed) : random_seed();
  if (const OrderedJson* bias = member(body, "logit_bias")) {
    params.logit_bias = read_bias(api, *bias);
  }
  request.stop = read_stops(body);
  if (const OrderedJson* ids = member(body, "stop_token_ids")) {
    for (const OrderedJson& id : *ids) {
      if (!id.is_number_integer() || request.stop_token_ids.size() >= kStopTokenIds) {
        throw ApiError(400, concat("'stop_token_ids' must be at most ", kStopTokenIds, " integers."),
                       "stop_token_ids");
      }
      request.stop_token_ids.push_back(token_id(api, id.get<int64_t>(), "stop_token_ids"));
    }
  }
  request.include_stop_str_in_output = boolean(body, "include_stop_str_in_output", false);
  request.ignore_eos = boolean(body, "ignore_eos", false);
  request.min_tokens = integer(body, "min_tokens").value_or(0);
  request.skip_special_tokens = boolean(body, "skip_special_tokens", true);
  request.priority = static_cast<int>(integer(body, "priority").value_or(0));
  request.cache_salt = text(body, "cache_salt");
  request.n = static_cast<int>(integer(body, "n").value_or(1));
  if (request.n > api.max_choices) {
    throw ApiError(400,
                   concat("Invalid 'n': ", request.n, " is above the maximum of ",
                          api.max_choices, "."),
                   "n", "integer_above_max_value");
  }
}

void fit_prompt(const Api& api, const OrderedJson& body, const char* param, Request& request) {
  const int64_t limit = api.max_model_len();
  if (const auto keep = integer(body, "truncate_prompt_tokens")) {
    const int64_t last = *keep >= 0 ? *keep : limit - 1;
    const auto size = static_cast<int64_t>(request.prompt.size());
    if (size > last) request.prompt.erase(request.prompt.begin(), request.prompt.end() - last);
  }
  const auto size = static_cast<int64_t>(request.prompt.size());
  if (size == 0) {
    throw ApiError(400, concat("'", param, "' must not be empty."), param);
  }
  const int64_t answer = std::max<int64_t>(request.max_tokens, 0);
  const bool no_room = request.max_tokens < 0 ? size >= limit : size + answer > limit;
  if (!no_room) return;
  throw ApiError(400,
                 concat("This model's maximum context length is ", limit,
                        " tokens. However, you requested ", size + answer, " tokens (", size,
                        " in the ", param, ", ", answer,
                        " in the completion). Please reduce the length of the ", param,
                        " or completion."),
                 param, "context_length_exceeded");
}

}  // namespace lowbit::server

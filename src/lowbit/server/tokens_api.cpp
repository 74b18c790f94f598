#include "lowbit/server/tokens_api.h"

#include "lowbit/server/api_error.h"
#include "lowbit/server/chat_prompt.h"

namespace lowbit::server {

namespace {

constexpr Field kTokenizeFields[] = {
    {"model", FieldKind::kString},
    {"prompt", FieldKind::kString},
    {"messages", FieldKind::kArray},
    {"tools", FieldKind::kArray},
    {"add_special_tokens", FieldKind::kBoolean},
    {"add_generation_prompt", FieldKind::kBoolean},
    {"continue_final_message", FieldKind::kBoolean},
    {"chat_template_kwargs", FieldKind::kObject},
    {"return_token_strs", FieldKind::kBoolean},
};

constexpr Field kDetokenizeFields[] = {
    {"model", FieldKind::kString},
    {"tokens", FieldKind::kArray},
};

}  // namespace

std::span<const Field> tokenize_fields() { return kTokenizeFields; }
std::span<const Field> detokenize_fields() { return kDetokenizeFields; }

OrderedJson tokenize(const Api& api, const OrderedJson& body) {
  check_fields(body, kTokenizeFields);
  check_model(api, body);
  std::vector<int32_t> ids;
  if (member(body, "messages") != nullptr) {
    ids = encode(api, read_conversation(body));
  } else if (member(body, "prompt") != nullptr) {
    EncodeOptions options;
    options.add_special_tokens = boolean(body, "add_special_tokens", true);
    ids = api.tokenizer().encode(text(body, "prompt"), options);
  } else {
    throw ApiError(400, "Missing required parameter: 'prompt' or 'messages'.", "prompt",
                   "missing_required_parameter");
  }
  OrderedJson result;
  result["count"] = ids.size();
  result["max_model_len"] = api.max_model_len();
  result["tokens"] = ids;
  result["token_strs"] = nullptr;
  if (boolean(body, "return_token_strs", false)) {
    result["token_strs"] = OrderedJson::array();
    for (const int32_t id : ids) result["token_strs"].push_back(api.tokenizer().piece(id));
  }
  return result;
}

OrderedJson detokenize(const Api& api, const OrderedJson& body) {
  check_fields(body, kDetokenizeFields);
  check_model(api, body);
  const OrderedJson* tokens = member(body, "tokens");
  if (tokens == nullptr) {
    throw ApiError(400, "Missing required parameter: 'tokens'.", "tokens",
                   "missing_required_parameter");
  }
  std::vector<int32_t> ids;
  for (const OrderedJson& token : *tokens) {
    const int64_t id = token.is_number_integer() ? token.get<int64_t>() : -1;
    if (id < 0 || id >= api.tokenizer().vocab_size()) {
      throw ApiError(400, "'tokens' must be ids of the vocabulary.", "tokens");
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return {{"prompt", api.tokenizer().decode(ids)}};
}

}  // namespace lowbit::server

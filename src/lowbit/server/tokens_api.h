// POST /tokenize and /detokenize, as vLLM has them.
#pragma once

#include <span>

#include "lowbit/server/api.h"
#include "lowbit/server/fields.h"

namespace lowbit::server {

std::span<const Field> tokenize_fields();
std::span<const Field> detokenize_fields();

// {"prompt"} or {"messages"} to {"count", "max_model_len", "tokens", "token_strs"}.
OrderedJson tokenize(const Api& api, const OrderedJson& body);
// {"tokens"} to {"prompt"}.
OrderedJson detokenize(const Api& api, const OrderedJson& body);

}  // namespace lowbit::server

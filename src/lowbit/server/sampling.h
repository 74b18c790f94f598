// Generation parameters: from members of a request body to an engine request.
#pragma once

#include <span>

#include "lowbit/engine/request.h"
#include "lowbit/server/api.h"
#include "lowbit/server/fields.h"

namespace lowbit::server {

// Of all endpoints that generate: sampling, stopping, vLLM's further ones.
std::span<const Field> sampling_fields();

// Throws ApiError (400) on parameters that are out of range, or known but not supported here.
// `body` has passed check_fields(sampling_fields()). Fills everything but prompt, max_tokens,
// log-probabilities, constraint and on_output.
void read_sampling(const Api& api, const OrderedJson& body, Request& request);

// Cuts the prompt to truncate_prompt_tokens, and refuses (400, context_length_exceeded) one that
// leaves no room for an answer, or less than max_tokens (-1: no demand).
void fit_prompt(const Api& api, const OrderedJson& body, const char* param, Request& request);

}  // namespace lowbit::server

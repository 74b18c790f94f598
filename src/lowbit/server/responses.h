// POST /v1/responses: text and function tools. Nothing is stored, so previous responses cannot be
// referred to.
#pragma once

#include <span>

#include "lowbit/server/answer.h"
#include "lowbit/server/api.h"
#include "lowbit/server/fields.h"

namespace lowbit::server {

std::span<const Field> responses_fields();
// Throws ApiError, or lowbit::Error for what the library refuses.
Prepared prepare_response(const Api& api, const OrderedJson& body);

// Chat messages of "instructions" and "input" (a string or items). Throws ApiError (400).
OrderedJson messages_of_input(const OrderedJson& body);

}  // namespace lowbit::server

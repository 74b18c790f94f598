// POST /v1/chat/completions.
#pragma once

#include <span>

#include "lowbit/server/answer.h"
#include "lowbit/server/api.h"
#include "lowbit/server/fields.h"

namespace lowbit::server {

std::span<const Field> chat_fields();
// Throws ApiError, or lowbit::Error for what the library refuses.
Prepared prepare_chat(const Api& api, const OrderedJson& body);

}  // namespace lowbit::server

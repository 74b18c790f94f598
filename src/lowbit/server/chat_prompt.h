// Conversations: checks the messages and tools of a request and makes the prompt of them.
#pragma once

#include <string>
#include <vector>

#include "lowbit/server/api.h"

namespace lowbit::server {

struct Conversation {
  OrderedJson messages = OrderedJson::array();  // as templates expect them
  OrderedJson tools;                            // null: none
  bool add_generation_prompt = true;
  bool continue_final_message = false;
  bool add_special_tokens = false;
  OrderedJson template_variables = OrderedJson::object();  // chat_template_kwargs
};

// Reads "messages", "tools" and what goes with them from a chat request. Throws ApiError (400).
Conversation read_conversation(const OrderedJson& body);

// The messages as templates expect them: content a string (text parts joined), arguments of tool
// calls an object, "developer" a system message. Throws ApiError (400), on what is not text too.
OrderedJson normalize_messages(const OrderedJson& messages);
// Checks tools in chat's shape ({"type": "function", "function": {...}}).
void check_tools(const OrderedJson& tools);
std::vector<std::string> tool_names(const OrderedJson& tools);

// Throws ApiError (400) if the model has no chat template or the template refuses.
std::string render(const Api& api, const Conversation& conversation);
std::vector<int32_t> encode(const Api& api, const Conversation& conversation);

}  // namespace lowbit::server

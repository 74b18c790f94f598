// What a request says about its tools: whether the answer may, must or must not call them.
#pragma once

#include <memory>
#include <optional>

#include "lowbit/server/api.h"
#include "lowbit/server/chat_prompt.h"

namespace lowbit::server {

struct ToolUse {
  bool calls = false;  // look for calls in the answer
  std::vector<std::string> names;
  int max_calls = 0;
  std::shared_ptr<const TokenConstraint> constraint;  // if the answer must be a call

  // A parser for one answer; none if calls are not looked for.
  std::optional<ToolCallParser> parser(const Api& api) const;
};

// Reads "tool_choice" and "parallel_tool_calls"; takes the tools out of the conversation if they
// must not be used. A named choice comes as chat has it, {"type": "function", "function": {"name"}},
// or as responses has it, {"type": "function", "name"}. Throws ApiError (400).
ToolUse read_tool_use(const Api& api, const OrderedJson& body, Conversation& conversation);

}  // namespace lowbit::server

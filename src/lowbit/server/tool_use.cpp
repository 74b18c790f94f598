#include "lowbit/server/tool_use.h"

#include <algorithm>

#include "lowbit/server/api_error.h"
#include "lowbit/server/fields.h"

namespace lowbit::server {

namespace {

constexpr int kParallelCalls = 64;

// The name in a named choice.
std::string chosen_name(const OrderedJson& choice) {
  const OrderedJson* holder = choice.is_object() ? member(choice, "function") : nullptr;
  if (holder == nullptr) holder = &choice;
  const OrderedJson* name = holder->is_object() ? member(*holder, "name") : nullptr;
  if (name == nullptr || !name->is_string()) {
    throw ApiError(400,
                   "'tool_choice' must be 'none', 'auto', 'required' or a named function.",
                   "tool_choice", "invalid_value");
  }
  return name->get<std::string>();
}

OrderedJson only_tool(const OrderedJson& tools, const std::string& name) {
  for (const OrderedJson& tool : tools) {
    if (tool["function"]["name"] == name) return OrderedJson::array({tool});
  }
  throw ApiError(400, "'tool_choice' names a function that is not in 'tools'.", "tool_choice",
                 "invalid_value");
}

}  // namespace

std::optional<ToolCallParser> ToolUse::parser(const Api& api) const {
  if (!calls) return std::nullopt;
  return ToolCallParser(api.tool_style, names, max_calls);
}

ToolUse read_tool_use(const Api& api, const OrderedJson& body, Conversation& conversation) {
  ToolUse use;
  const OrderedJson* given = member(body, "tool_choice");
  const bool has_tools = !conversation.tools.is_null();
  const OrderedJson choice = given != nullptr ? *given : has_tools ? "auto" : "none";
  if (choice == "none") {
    conversation.tools = nullptr;
    return use;
  }
  if (!has_tools) {
    if (choice == "auto") return use;
    throw ApiError(400, "When using 'tool_choice', 'tools' must be set.", "tool_choice",
                   "invalid_value");
  }
  use.calls = true;
  use.names = tool_names(conversation.tools);
  use.max_calls = boolean(body, "parallel_tool_calls", true) ? kParallelCalls : 1;
  if (choice == "auto") return use;
  if (choice == "required") {
    use.constraint = api.guides.compile_calls(api.tool_style, conversation.tools, use.max_calls);
    return use;
  }
  const OrderedJson only = only_tool(conversation.tools, chosen_name(choice));
  use.max_calls = 1;
  use.constraint = api.guides.compile_calls(api.tool_style, only, 1);
  return use;
}

}  // namespace lowbit::server

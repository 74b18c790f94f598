#include "lowbit/base/check.h"
#include "lowbit/server/responses.h"

namespace lowbit::server {

namespace {

[[noreturn]] void bad_item(size_t index, const std::string& what) {
  const std::string param = concat("input[", index, "]");
  throw ApiError(400, "'" + param + "' " + what, param, "invalid_value");
}

std::string string_of(const OrderedJson& item, const char* name, size_t index) {
  const OrderedJson* value = member(item, name);
  if (value == nullptr || !value->is_string()) bad_item(index, concat("needs a string '", name, "'."));
  return value->get<std::string>();
}

// Calls of one turn stand in one message.
void add_call(const OrderedJson& item, size_t index, OrderedJson& messages) {
  const OrderedJson call = {{"id", string_of(item, "call_id", index)},
                            {"type", "function"},
                            {"function",
                             {{"name", string_of(item, "name", index)},
                              {"arguments", string_of(item, "arguments", index)}}}};
  const bool joins = !messages.empty() && messages.back()["role"] == "assistant";
  if (!joins) messages.push_back({{"role", "assistant"}, {"content", nullptr}});
  messages.back()["tool_calls"].push_back(call);
}

void add_output(const OrderedJson& item, size_t index, OrderedJson& messages) {
  const OrderedJson* output = member(item, "output");
  if (output == nullptr) bad_item(index, "needs an 'output'.");
  messages.push_back({{"role", "tool"},
                      {"tool_call_id", string_of(item, "call_id", index)},
                      {"content", *output}});
}

void add_item(const OrderedJson& item, size_t index, OrderedJson& messages) {
  if (!item.is_object()) bad_item(index, "must be an object.");
  const OrderedJson* given = member(item, "type");
  const std::string type = given == nullptr      ? "message"
                           : given->is_string() ? given->get<std::string>()
                                                : "";
  if (type == "message") {
    if (member(item, "role") == nullptr) bad_item(index, "needs a 'role'.");
    const OrderedJson* content = member(item, "content");
    messages.push_back(
        {{"role", item["role"]}, {"content", content == nullptr ? OrderedJson("") : *content}});
  } else if (type == "function_call") {
    add_call(item, index, messages);
  } else if (type == "function_call_output") {
    add_output(item, index, messages);
  } else if (type != "reasoning") {
    bad_item(index, "is of a type that is not supported; there are message, function_call, "
                    "function_call_output and reasoning (ignored).");
  }
}

}  // namespace

OrderedJson messages_of_input(const OrderedJson& body) {
  OrderedJson messages = OrderedJson::array();
  const std::string instructions = text(body, "instructions");
  if (!instructions.empty()) messages.push_back({{"role", "system"}, {"content", instructions}});
  const OrderedJson* input = member(body, "input");
  if (input == nullptr) {
    throw ApiError(400, "Missing required parameter: 'input'.", "input",
                   "missing_required_parameter");
  }
  if (input->is_string()) {
    messages.push_back({{"role", "user"}, {"content", *input}});
  } else if (input->is_array()) {
    for (size_t i = 0; i < input->size(); ++i) add_item((*input)[i], i, messages);
  } else {
    throw ApiError(400, "'input' must be a string or an array of items.", "input", "invalid_type");
  }
  return messages;
}

}  // namespace lowbit::server

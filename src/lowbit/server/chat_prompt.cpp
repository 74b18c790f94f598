#include "lowbit/server/chat_prompt.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/server/api_error.h"
#include "lowbit/server/fields.h"

namespace lowbit::server {

namespace {

constexpr size_t kMessages = 4'096, kTools = 256, kNameBytes = 64;

std::string path_of(size_t index, const char* rest) { return concat("messages[", index, "]", rest); }

// A string, or text parts joined by line ends, as vLLM does for templates that want strings.
std::string flatten_content(const OrderedJson& content, size_t index) {
  if (content.is_null()) return "";
  if (content.is_string()) return content.get<std::string>();
  const std::string param = path_of(index, ".content");
  if (!content.is_array()) {
    throw ApiError(400, "'" + param + "' must be a string or an array of parts.", param,
                   "invalid_type");
  }
  std::string joined;
  bool first = true;
  for (const OrderedJson& part : content) {
    const std::string type =
        part.is_object() && part.contains("type") && part["type"].is_string() ? part["type"] : "";
    const bool refusal = type == "refusal";
    const bool known = type == "text" || type == "input_text" || type == "output_text" || refusal;
    const OrderedJson* text = known ? member(part, refusal ? "refusal" : "text") : nullptr;
    if (text == nullptr || !text->is_string()) {
      throw ApiError(400, "'" + param + "': only text parts are supported by this model.", param,
                     "invalid_value");
    }
    if (!first) joined += "\n";
    joined += text->get<std::string>();
    first = false;
  }
  return joined;
}

OrderedJson normalize_call(const OrderedJson& call, size_t index) {
  const std::string param = path_of(index, ".tool_calls");
  const OrderedJson* function = call.is_object() ? member(call, "function") : nullptr;
  const OrderedJson* name =
      function != nullptr && function->is_object() ? member(*function, "name") : nullptr;
  if (name == nullptr || !name->is_string()) {
    throw ApiError(400, "'" + param + "' must be calls of named functions.", param);
  }
  OrderedJson arguments = OrderedJson::object();
  if (const OrderedJson* given = member(*function, "arguments")) {
    arguments = *given;
    if (given->is_string()) {
      const std::string source = given->get<std::string>();
      try {
        arguments = source.empty() ? OrderedJson::object() : parse_ordered_json(source, param);
      } catch (const Error& error) {
        throw ApiError(400, error.what(), param);
      }
    }
  }
  if (!arguments.is_object()) {
    throw ApiError(400, "'" + param + "': arguments must be a JSON object.", param);
  }
  OrderedJson result = {{"type", "function"}};
  if (call.contains("id")) result["id"] = call["id"];
  result["function"] = {{"name", *name}, {"arguments", std::move(arguments)}};
  return result;
}

OrderedJson normalize_message(const OrderedJson& message, size_t index) {
  const OrderedJson* role = message.is_object() ? member(message, "role") : nullptr;
  if (role == nullptr || !role->is_string()) {
    throw ApiError(400, "Missing required parameter: '" + path_of(index, ".role") + "'.",
                   path_of(index, ".role"), "missing_required_parameter");
  }
  OrderedJson result;
  result["role"] = *role == "developer" ? OrderedJson("system") : *role;
  const OrderedJson* content = member(message, "content");
  const OrderedJson* calls = member(message, "tool_calls");
  const bool has_calls = calls != nullptr && calls->is_array() && !calls->empty();
  if (content == nullptr && !has_calls && *role != "assistant") {
    throw ApiError(400, "Missing required parameter: '" + path_of(index, ".content") + "'.",
                   path_of(index, ".content"), "missing_required_parameter");
  }
  result["content"] = content == nullptr ? "" : flatten_content(*content, index);
  for (const char* name : {"name", "tool_call_id", "reasoning_content"}) {
    const OrderedJson* value = member(message, name);
    if (value != nullptr && value->is_string()) result[name] = *value;
  }
  if (calls != nullptr && !calls->is_array()) {
    throw ApiError(400, "'tool_calls' must be an array.", path_of(index, ".tool_calls"));
  }
  if (has_calls) {
    result["tool_calls"] = OrderedJson::array();
    for (const OrderedJson& call : *calls) {
      result["tool_calls"].push_back(normalize_call(call, index));
    }
  }
  return result;
}

bool is_function_name(const std::string& name) {
  return !name.empty() && name.size() <= kNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-' || c == '.';
         });
}

}  // namespace

OrderedJson normalize_messages(const OrderedJson& messages) {
  if (!messages.is_array() || messages.empty()) {
    throw ApiError(400, "'messages' must be an array, and not empty.", "messages",
                   "invalid_type");
  }
  if (messages.size() > kMessages) {
    throw ApiError(400, concat("More than ", kMessages, " messages."), "messages",
                   "array_above_max_length");
  }
  OrderedJson result = OrderedJson::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    result.push_back(normalize_message(messages[i], i));
  }
  return result;
}

void check_tools(const OrderedJson& tools) {
  if (!tools.is_array() || tools.size() > kTools) {
    throw ApiError(400, concat("'tools' must be an array of at most ", kTools, " tools."), "tools");
  }
  for (const OrderedJson& tool : tools) {
    const OrderedJson* function = tool.is_object() ? member(tool, "function") : nullptr;
    const OrderedJson* name =
        function != nullptr && function->is_object() ? member(*function, "name") : nullptr;
    if (name == nullptr || !name->is_string() || !is_function_name(name->get<std::string>())) {
      throw ApiError(400,
                     "'tools' must be functions with a name of letters, digits, '_', '-' and '.', "
                     "at most 64.",
                     "tools", "invalid_value");
    }
    const OrderedJson* parameters = member(*function, "parameters");
    if (parameters != nullptr && !parameters->is_object()) {
      throw ApiError(400, "'parameters' of a tool must be a JSON schema object.", "tools",
                     "invalid_type");
    }
  }
}

std::vector<std::string> tool_names(const OrderedJson& tools) {
  std::vector<std::string> names;
  for (const OrderedJson& tool : tools) names.push_back(tool["function"]["name"]);
  return names;
}

Conversation read_conversation(const OrderedJson& body) {
  Conversation conversation;
  const OrderedJson* messages = member(body, "messages");
  if (messages == nullptr) {
    throw ApiError(400, "Missing required parameter: 'messages'.", "messages",
                   "missing_required_parameter");
  }
  conversation.messages = normalize_messages(*messages);
  const OrderedJson* tools = member(body, "tools");
  if (tools != nullptr) check_tools(*tools);
  if (tools != nullptr && !tools->empty()) conversation.tools = *tools;
  conversation.continue_final_message = boolean(body, "continue_final_message", false);
  conversation.add_generation_prompt =
      boolean(body, "add_generation_prompt", !conversation.continue_final_message);
  if (conversation.continue_final_message && conversation.add_generation_prompt) {
    throw ApiError(400,
                   "Cannot set both 'continue_final_message' and 'add_generation_prompt' to true.",
                   "continue_final_message");
  }
  conversation.add_special_tokens = boolean(body, "add_special_tokens", false);
  if (member(body, "chat_template") != nullptr) {
    throw ApiError(400, "'chat_template' in a request is not allowed on this server.",
                   "chat_template", "unsupported_parameter");
  }
  if (const OrderedJson* variables = member(body, "chat_template_kwargs")) {
    for (const char* name : {"messages", "tools", "documents", "add_generation_prompt",
                             "bos_token", "eos_token", "unk_token", "pad_token"}) {
      if (variables->contains(name)) {
        throw ApiError(400, concat("'chat_template_kwargs' must not have '", name, "'."),
                       "chat_template_kwargs");
      }
    }
    conversation.template_variables = *variables;
  }
  return conversation;
}

std::string render(const Api& api, const Conversation& conversation) {
  if (api.chat_template == nullptr) {
    throw ApiError(400, "This model has no chat template; use /v1/completions.", "messages");
  }
  ChatTemplateInputs inputs;
  inputs.messages = conversation.messages;
  inputs.tools = conversation.tools;
  inputs.add_generation_prompt = conversation.add_generation_prompt;
  inputs.bos_token = api.spec.bos_token;
  inputs.eos_token = api.spec.eos_token;
  inputs.unk_token = api.spec.unk_content;
  inputs.pad_token = api.spec.pad_token;
  inputs.extra = conversation.template_variables;
  std::string text = api.chat_template->render(inputs);
  if (!conversation.continue_final_message) return text;
  // Up to the end of the last message, so that the answer goes on where it stops.
  const std::string last = conversation.messages.back()["content"];
  const size_t at = text.rfind(last);
  if (last.empty() || at == std::string::npos) {
    throw ApiError(400, "'continue_final_message' needs a last message that the template shows.",
                   "continue_final_message");
  }
  return text.substr(0, at + last.size());
}

std::vector<int32_t> encode(const Api& api, const Conversation& conversation) {
  EncodeOptions options;
  options.add_special_tokens = conversation.add_special_tokens;
  return api.tokenizer().encode(render(api, conversation), options);
}

}  // namespace lowbit::server

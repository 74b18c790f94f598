#include "lowbit/server/openapi.h"

#include <vector>

#include "lowbit/server/chat.h"
#include "lowbit/server/completions.h"
#include "lowbit/server/responses.h"
#include "lowbit/server/sampling.h"
#include "lowbit/server/tokens_api.h"

namespace lowbit::server {

namespace {

OrderedJson reference(const char* name) {
  return {{"$ref", std::string("#/components/schemas/") + name}};
}

OrderedJson content(const char* type, OrderedJson schema) {
  return {{type, {{"schema", std::move(schema)}}}};
}

OrderedJson answer(const char* description, OrderedJson body) {
  return {{"description", description}, {"content", std::move(body)}};
}

OrderedJson errors(std::initializer_list<const char*> statuses) {
  OrderedJson responses = OrderedJson::object();
  for (const char* status : statuses) {
    responses[status] = answer("Refused", content("application/json", reference("Error")));
  }
  return responses;
}

// Members of a generating request: its own and those that all share.
OrderedJson request_schema(std::span<const Field> own, const std::vector<std::string>& required) {
  std::vector<Field> fields(own.begin(), own.end());
  const auto shared = sampling_fields();
  fields.insert(fields.end(), shared.begin(), shared.end());
  return schema_of(fields, required);
}

OrderedJson object_schema(std::initializer_list<const char*> required) {
  OrderedJson schema = {{"type", "object"}};
  schema["required"] = OrderedJson::array();
  for (const char* name : required) schema["required"].push_back(name);
  return schema;
}

OrderedJson post(const char* summary, const char* request, const char* result, bool streams) {
  OrderedJson body = content("application/json", reference(result));
  if (streams) body["text/event-stream"] = {{"schema", {{"type", "string"}}}};
  OrderedJson responses = {{"200", answer("Done", std::move(body))}};
  responses.update(errors({"400", "401", "404", "408", "413", "429", "500", "503"}));
  return {{"post",
           {{"summary", summary},
            {"requestBody",
             {{"required", true}, {"content", content("application/json", reference(request))}}},
            {"responses", std::move(responses)}}}};
}

OrderedJson get(const char* summary, OrderedJson body) {
  OrderedJson responses = {{"200", answer("Done", std::move(body))}};
  responses.update(errors({"401", "503"}));
  return {{"get", {{"summary", summary}, {"responses", std::move(responses)}}}};
}

OrderedJson schemas() {
  OrderedJson schemas;
  schemas["ChatRequest"] = request_schema(chat_fields(), {"messages"});
  schemas["CompletionRequest"] = request_schema(completion_fields(), {"prompt"});
  schemas["ResponseRequest"] = request_schema(responses_fields(), {"input"});
  schemas["TokenizeRequest"] = schema_of(tokenize_fields(), {});
  schemas["DetokenizeRequest"] = schema_of(detokenize_fields(), {"tokens"});
  schemas["Chat"] = object_schema({"id", "object", "created", "model", "choices", "usage"});
  schemas["Completion"] = object_schema({"id", "object", "created", "model", "choices", "usage"});
  schemas["Response"] = object_schema({"id", "object", "created_at", "model", "output", "status"});
  schemas["Tokens"] = object_schema({"count", "max_model_len", "tokens"});
  schemas["Prompt"] = object_schema({"prompt"});
  schemas["Models"] = object_schema({"object", "data"});
  schemas["Model"] = object_schema({"id", "object", "created", "owned_by"});
  schemas["Error"] = object_schema({"error"});
  return schemas;
}

}  // namespace

OrderedJson openapi_document(const std::string& version) {
  const OrderedJson json = {{"type", "object"}};
  OrderedJson paths;
  paths["/v1/chat/completions"] = post("Answer a conversation", "ChatRequest", "Chat", true);
  paths["/v1/completions"] = post("Continue a text", "CompletionRequest", "Completion", true);
  paths["/v1/responses"] = post("Answer an input", "ResponseRequest", "Response", true);
  paths["/tokenize"] = post("Text to token ids", "TokenizeRequest", "Tokens", false);
  paths["/detokenize"] = post("Token ids to text", "DetokenizeRequest", "Prompt", false);
  paths["/v1/models"] = get("Models", content("application/json", reference("Models")));
  paths["/version"] = get("Version", content("application/json", json));
  paths["/health"] = get("The engine works", content("text/plain", {{"type", "string"}}));
  paths["/ready"] = get("New requests are taken", content("text/plain", {{"type", "string"}}));
  paths["/metrics"] = get("Prometheus' counters", content("text/plain", {{"type", "string"}}));
  OrderedJson document;
  document["openapi"] = "3.1.0";
  document["info"] = {{"title", "lowbit"}, {"version", version}};
  document["paths"] = std::move(paths);
  document["components"] = {
      {"schemas", schemas()},
      {"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}};
  document["security"] = OrderedJson::array({OrderedJson{{"key", OrderedJson::array()}}});
  return document;
}

}  // namespace lowbit::server

#include "lowbit/server/api_error.h"

#include "lowbit/base/check.h"
#include "lowbit/base/json.h"

namespace lowbit::server {

namespace {

const char* type_of(const ApiError& error) {
  if (error.status == 429) return "rate_limit_error";
  if (error.status == 401) return "authentication_error";
  if (error.status == 403) return "permission_error";
  if (error.status == 503) return "service_unavailable_error";
  if (error.status >= 500) return "server_error";
  return "invalid_request_error";
}

OrderedJson text_or_null(const std::string& text) {
  return text.empty() ? OrderedJson(nullptr) : OrderedJson(text);
}

}  // namespace

std::string error_json(const ApiError& error) {
  OrderedJson body;
  body["message"] = error.what();
  body["type"] = type_of(error);
  body["param"] = text_or_null(error.param);
  body["code"] = text_or_null(error.code);
  return dump_json(OrderedJson{{"error", std::move(body)}});
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = error_json(error);
  if (error.retry_after > 0) {
    response.fields.emplace_back("Retry-After", std::to_string(error.retry_after));
  }
  if (error.status == 401) response.fields.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

ApiError to_api_error(const std::exception& error) {
  if (const auto* api = dynamic_cast<const ApiError*>(&error)) return *api;
  if (const auto* known = dynamic_cast<const Error*>(&error)) {
    if (known->kind() == ErrorKind::kInvalidArgument || known->kind() == ErrorKind::kUnsupported ||
        known->kind() == ErrorKind::kCorruptFile) {
      return {400, known->what()};
    }
  }
  return {500, "internal error; the server's log has more"};
}

}  // namespace lowbit::server

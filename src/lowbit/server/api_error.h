// ApiError: a refusal as a client of the OpenAI API sees it.
#pragma once

#include <stdexcept>
#include <string>

#include "lowbit/server/http.h"

namespace lowbit::server {

class ApiError : public std::runtime_error {
 public:
  // param: the member that is wrong; code: OpenAI's word for what is; both may be empty (null).
  ApiError(int status, const std::string& message, std::string param = "", std::string code = "")
      : std::runtime_error(message), status(status), param(std::move(param)), code(std::move(code)) {}

  int status;
  std::string param;
  std::string code;
  int retry_after = 0;  // seconds; 0: not said
};

// {"error": {"message", "type", "param", "code"}} as OpenAI spells them.
std::string error_json(const ApiError& error);
HttpResponse error_response(const ApiError& error);

// What an exception thrown while a request was read or prepared means to its client: what the
// library calls invalid or unsupported is the client's, anything else 500 without details.
ApiError to_api_error(const std::exception& error);

}  // namespace lowbit::server

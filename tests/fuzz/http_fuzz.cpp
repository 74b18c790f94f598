// libFuzzer: the input is what a client sends, cut in two places that its first bytes name. However
// it is cut, the same requests come out.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "lowbit/server/request_parser.h"

namespace {

using lowbit::server::HttpError;
using lowbit::server::HttpLimits;
using lowbit::server::HttpRequest;
using lowbit::server::RequestParser;

HttpLimits limits() {
  HttpLimits limits;
  limits.header_bytes = 2'000;
  limits.body_bytes = 3'000;
  return limits;
}

// Requests until the end or an error; each as method, path and body.
std::vector<std::string> read(const std::vector<std::string>& pieces) {
  std::vector<std::string> requests;
  auto parser = std::make_unique<RequestParser>(limits());
  std::string pending;
  try {
    for (const std::string& piece : pieces) {
      pending += piece;
      for (;;) {
        pending.erase(0, parser->push(pending));
        if (!parser->done()) break;
        const HttpRequest request = parser->take();
        if (request.body.size() > limits().body_bytes) abort();
        requests.push_back(request.method + " " + request.path + "\n" + request.body);
        parser = std::make_unique<RequestParser>(limits());
        if (pending.empty()) break;
      }
    }
  } catch (const HttpError&) {
    requests.emplace_back("error");
  }
  return requests;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t a = text.size() * data[0] / 256, b = a + (text.size() - a) * data[1] / 256;
  const auto whole = read({text});
  const auto cut = read({text.substr(0, a), text.substr(a, b - a), text.substr(b)});
  // The bounds on what is pending see the cuts, so only what came through must be the same.
  for (size_t i = 0; i < whole.size() && i < cut.size(); ++i) {
    if (whole[i] == "error" || cut[i] == "error") break;
    if (whole[i] != cut[i]) abort();
  }
  return 0;
}

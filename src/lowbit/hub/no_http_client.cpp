// In place of http_client.cpp where libcurl is not linked.
#include "lowbit/base/check.h"
#include "lowbit/hub/http_client.h"

namespace lowbit::hub {

struct HttpClient::Impl {};

HttpClient::HttpClient(HttpTimes, std::function<bool()>) {
  fail(ErrorKind::kUnsupported,
       "this lowbit was built without libcurl and cannot download models; build it with "
       "libcurl4-openssl-dev, or put the model there by other means");
}
HttpClient::~HttpClient() = default;
HttpAnswer HttpClient::request(const HttpRequest&, const Sink&) { return {}; }

const std::string& HttpAnswer::field(const std::string& name) const { return fields.at(name); }
std::string origin_of(const std::string&) { return ""; }
std::string resolve_url(const std::string&, const std::string&) { return ""; }

}  // namespace lowbit::hub

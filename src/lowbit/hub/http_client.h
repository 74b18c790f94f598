// HttpClient: single HTTP requests over libcurl. Knows nothing of the hub, of redirects or retries.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lowbit::hub {

struct HttpRequest {
  std::string url;                  // http or https
  std::vector<std::string> fields;  // "Name: value"
  bool head = false;                // HEAD instead of GET
};

struct HttpAnswer {
  int status = 0;                             // 0: none came
  std::map<std::string, std::string> fields;  // names in lower case
  std::string fault;                          // why the transfer broke off; empty: it did not
  bool hopeless = false;                      // the same fault would come again (a bad certificate)
  double retry_after = 0;                     // seconds, if the server named any
  std::string error_body;                     // the beginning of an answer other than 200 or 206

  bool whole() const { return fault.empty() && status != 0; }
  // The value of a field (name in lower case), or "".
  const std::string& field(const std::string& name) const;
};

struct HttpTimes {
  double connect_seconds = 20;
  double stall_seconds = 30;  // without a single byte: the transfer is given up
};

class HttpClient {
 public:
  // stop: asked at least once a second; true ends the transfer with a fault. May be empty.
  // Throws kUnsupported in a build without libcurl.
  HttpClient(HttpTimes times, std::function<bool()> stop);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Called with each piece of the body of a 200 or 206; `head` has status and fields. What it
  // throws ends the transfer and is thrown by request().
  using Sink = std::function<void(const HttpAnswer& head, std::string_view bytes)>;

  // Network faults are in the answer, not thrown.
  HttpAnswer request(const HttpRequest& request, const Sink& sink);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// scheme://host:port of a URL, in lower case and with the port spelled out; "" if it is not http
// or https.
std::string origin_of(const std::string& url);
// Where `location`, absolute or relative, leads from `url`; "" if nowhere that is a URL.
std::string resolve_url(const std::string& url, const std::string& location);

}  // namespace lowbit::hub

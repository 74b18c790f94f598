// HubClient: requests to the hub, with its token, its redirects and patience for its faults.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lowbit/hub/http_client.h"
#include "lowbit/hub/settings.h"

namespace lowbit::hub {

// How patiently to ask again after a fault that may pass: a broken connection, 408, 429, 5xx.
struct RetryPolicy {
  int attempts = 6;                  // in a row without progress
  double first_pause = 1;            // seconds; each further pause is twice as long
  double longest_pause = 30;         // seconds
  double longest_retry_after = 900;  // a server that asks for more is given up
  HttpTimes times;
};

class HubClient {
 public:
  // stop: true ends requests and pauses; may be empty.
  HubClient(HubSettings settings, RetryPolicy policy, std::function<bool()> stop);

  // The answer behind all redirects, whatever it is. The token goes to the origin of the endpoint
  // alone. `first` gets
  // the answer of the first hop, which is the hub's own.
  // Throws kIo if redirects lead in circles or from https to http.
  HttpAnswer get(const std::string& url, std::vector<std::string> fields,
                 const HttpClient::Sink& sink, HttpAnswer* first = nullptr);
  // What the hub itself says about a file: redirects within the endpoint only are followed.
  HttpAnswer head(const std::string& url);

  // The body of a small answer. Throws as Attempts::failed().
  std::string get_text(const std::string& url, size_t max_bytes, const std::string& what);

  const HubSettings& settings() const { return settings_; }
  bool stopped() const { return stop_ && stop_(); }

 private:
  friend class Attempts;
  std::vector<std::string> with_token(std::vector<std::string> fields,
                                      const std::string& url) const;

  HubSettings settings_;
  RetryPolicy policy_;
  std::function<bool()> stop_;
  std::string origin_;
  HttpClient http_;
};

// The attempts at one thing.
class Attempts {
 public:
  // what: "config.json of org/name", for messages.
  Attempts(HubClient& client, std::string what) : client_(client), what_(std::move(what)) {}

  void progressed() { failures_ = 0; }
  // Returns when it is time for another attempt. Throws kIo if the fault will not pass or there
  // have been enough attempts, saying what failed and what to do.
  void failed(const HttpAnswer& answer);

 private:
  double pause_after(const HttpAnswer& answer);
  [[noreturn]] void give_up(const HttpAnswer& answer) const;

  HubClient& client_;
  std::string what_;
  int failures_ = 0;
};

// Text from a server, fit to be shown: one line, no control characters, not long.
std::string shown(const std::string& text);

}  // namespace lowbit::hub

#include "lowbit/server/router.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "lowbit/base/check.h"
#include "lowbit/base/checksum.h"
#include "lowbit/server/api.h"
#include "lowbit/server/api_error.h"

namespace lowbit::server {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kGone = 499;  // in logs: the client did not wait for its answer

bool equal_in_constant_time(const std::string& a, const std::string& b) {
  if (a.size() != b.size()) return false;  // both are hashes
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned>(static_cast<uint8_t>(a[i]) ^ static_cast<uint8_t>(b[i]));
  }
  return difference == 0;
}

// What a client wrote, for a log: short, and without line ends or colours.
std::string harmless(const std::string& text) {
  std::string result = text.substr(0, 200);
  for (char& c : result) {
    if (c < ' ' || c > '~') c = '?';
  }
  return result;
}

bool is_request_id(const std::string& id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

// Adds the fields that every answer has, counts and logs. Shares nothing with the router, which may
// be gone before the last connection.
class ObservedReply final : public Reply {
 public:
  ObservedReply(std::shared_ptr<Reply> inner, std::shared_ptr<Router::Counts> counts,
                std::string route, HttpFields fields, std::function<void(int, double)> log)
      : inner_(std::move(inner)),
        counts_(std::move(counts)),
        route_(std::move(route)),
        fields_(std::move(fields)) {
    state_->log = std::move(log);
    watch();
  }

  void send(HttpResponse response) override {
    count(response);
    inner_->send(std::move(response));
    done();
  }
  void begin(HttpResponse response) override {
    count(response);
    inner_->begin(std::move(response));
  }
  void write(std::string_view piece) override { inner_->write(piece); }
  void end() override {
    inner_->end();
    done();
  }
  void abort() override {
    inner_->abort();
    done();
  }
  void on_gone(std::function<void()> callback) override { state_->gone = std::move(callback); }
  void on_backlog(std::function<void(bool)> callback) override {
    inner_->on_backlog(std::move(callback));
  }

 private:
  // Lives in the connection until the answer is complete, so it must not hold the reply.
  struct State {
    std::function<void()> gone;
    std::function<void(int status, double seconds)> log;
    Clock::time_point start = Clock::now();

    void write_log(int status) {
      if (!log) return;
      log(status, std::chrono::duration<double>(Clock::now() - start).count());
      log = nullptr;
    }
  };

  void watch() {
    inner_->on_gone([state = state_, counts = counts_] {
      ++counts->gone;
      state->write_log(kGone);
      if (state->gone) state->gone();
    });
  }
  void count(HttpResponse& response) {
    status_ = response.status;
    ++counts_->answers[{route_, status_}];
    response.fields.insert(response.fields.end(), fields_.begin(), fields_.end());
  }
  void done() {
    state_->gone = nullptr;
    state_->write_log(status_);
  }

  std::shared_ptr<Reply> inner_;
  std::shared_ptr<Router::Counts> counts_;
  std::string route_;
  HttpFields fields_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
  int status_ = 0;
};

}  // namespace

Router::Router(RouterOptions options, std::vector<Route> routes)
    : options_(std::move(options)), routes_(std::move(routes)) {
  for (std::string& key : options_.api_keys) {
    LOWBIT_CHECK(!key.empty(), "an API key is empty");
    key_hashes_.push_back(sha256(key));
    key.clear();
  }
}

const Route* Router::find(const std::string& path, const std::string& method,
                          std::string& allowed) const {
  for (const Route& route : routes_) {
    const bool below = route.path.ends_with("/*");
    const bool matches = below ? path.size() > route.path.size() - 1 &&
                                     path.starts_with(route.path.substr(0, route.path.size() - 1))
                               : path == route.path;
    if (!matches) continue;
    if (route.method == method || (route.method == "GET" && method == "HEAD")) return &route;
    allowed +=
        (allowed.empty() ? "" : ", ") + route.method + (route.method == "GET" ? ", HEAD" : "");
  }
  return nullptr;
}

bool Router::host_allowed(const HttpRequest& request) const {
  if (options_.allowed_hosts.empty()) return true;
  const std::string* host = request.field("host");
  if (host == nullptr) return true;  // HTTP/1.0: no browser
  std::string name = *host;
  const size_t colon = name.rfind(':');
  if (colon != std::string::npos && name.find(']', colon) == std::string::npos) name.resize(colon);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  const auto& names = options_.allowed_hosts;
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool Router::key_right(const HttpRequest& request) const {
  if (key_hashes_.empty()) return true;
  const std::string* field = request.field("authorization");
  constexpr std::string_view kBearer = "Bearer ";
  const bool bearer = field != nullptr && field->starts_with(kBearer);
  const std::string hash = sha256(bearer ? field->substr(kBearer.size()) : "");
  bool right = false;
  for (const std::string& key : key_hashes_) right |= equal_in_constant_time(hash, key);
  return bearer && right;
}

bool Router::origin_allowed(const std::string& origin) const {
  const auto& allowed = options_.cors_origins;
  return std::find(allowed.begin(), allowed.end(), "*") != allowed.end() ||
         std::find(allowed.begin(), allowed.end(), origin) != allowed.end();
}

void Router::preflight(const HttpRequest& request, Reply& reply) const {
  const std::string* headers = request.field("access-control-request-headers");
  HttpResponse response;
  response.status = 204;
  response.content_type.clear();
  response.fields = {{"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
                     {"Access-Control-Allow-Headers",
                      headers != nullptr ? harmless(*headers) : "Authorization, Content-Type"},
                     {"Access-Control-Max-Age", "600"}};
  reply.send(std::move(response));
}

void Router::handle(HttpRequest request, std::shared_ptr<Reply> inner) {
  std::string allowed;
  const Route* route = find(request.path, request.method, allowed);
  const std::string* given_id = request.field("x-request-id");
  const std::string id =
      given_id != nullptr && is_request_id(*given_id) ? *given_id : new_id("req_");
  HttpFields fields = {{"X-Request-Id", id}};
  const std::string* origin = request.field("origin");
  const bool cors = origin != nullptr && origin_allowed(*origin);
  if (cors) {
    fields.emplace_back("Access-Control-Allow-Origin", harmless(*origin));
    fields.emplace_back("Vary", "Origin");
  }
  std::function<void(int, double)> log;
  if (options_.log) {
    log = [write = options_.log, line = harmless(request.method) + " " + harmless(request.path),
           id](int status, double seconds) {
      char took[32];
      std::snprintf(took, sizeof took, "%.3f s", seconds);
      write(concat(line, " ", status, " ", took, " ", id));
    };
  }
  auto reply = std::make_shared<ObservedReply>(std::move(inner), counts_,
                                               route != nullptr ? route->path : "other",
                                               std::move(fields), std::move(log));
  const auto refuse = [&](const ApiError& error) { reply->send(error_response(error)); };
  if (!host_allowed(request)) {
    return refuse({403, "This server answers to other names only; see --allowed-host."});
  }
  if (cors && request.method == "OPTIONS") return preflight(request, *reply);
  if (route == nullptr && allowed.empty()) {
    return refuse({404, "There is nothing at this path.", "", "not_found"});
  }
  if (route == nullptr) {
    HttpResponse response = error_response({405, "The methods here are " + allowed + "."});
    response.fields.emplace_back("Allow", allowed);
    return reply->send(std::move(response));
  }
  if (route->access != Access::kPublic && !key_right(request)) {
    return refuse({401, "Incorrect or missing API key; send it as 'Authorization: Bearer KEY'.", "",
                   "invalid_api_key"});
  }
  try {
    route->handler(std::move(request), reply);
  } catch (const std::exception& error) {
    refuse(to_api_error(error));
  }
}

}  // namespace lowbit::server

// Router: decides who answers a request, and whether it is answered at all: host, key, method and
// path are checked here, before anything reads the body. On the I/O thread.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lowbit/server/http.h"

namespace lowbit::server {

enum class Access {
  kPublic,  // without a key
  kKey,     // with a key, if the server has any
};

struct Route {
  std::string method;  // GET serves HEAD too
  std::string path;    // exact; one that ends in "/*" takes everything below
  Access access = Access::kKey;
  Handler handler;
};

struct RouterOptions {
  std::vector<std::string> api_keys;
  // Names that Host may give, without port; empty: any. Keeps pages of other sites from reaching a
  // server on this machine by a name of their own.
  std::vector<std::string> allowed_hosts;
  std::vector<std::string> cors_origins;  // that browsers may let in; "*": all
  std::function<void(const std::string& line)> log;  // one line a request, without its content
};

class Router {
 public:
  Router(RouterOptions options, std::vector<Route> routes);

  void handle(HttpRequest request, std::shared_ptr<Reply> reply);
  const std::vector<Route>& routes() const { return routes_; }

  // Answers so far, by path of the route ("other" for none) and status.
  struct Counts {
    std::map<std::pair<std::string, int>, uint64_t> answers;
    uint64_t gone = 0;  // clients that went away before they had their answer
  };
  const Counts& counts() const { return *counts_; }

 private:
  const Route* find(const std::string& path, const std::string& method, std::string& allowed) const;
  bool host_allowed(const HttpRequest& request) const;
  bool key_right(const HttpRequest& request) const;
  bool origin_allowed(const std::string& origin) const;
  void preflight(const HttpRequest& request, Reply& reply) const;

  RouterOptions options_;
  std::vector<std::string> key_hashes_;  // SHA-256
  std::vector<Route> routes_;
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

}  // namespace lowbit::server

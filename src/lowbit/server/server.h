// Server: the OpenAI-compatible HTTP server over an engine. One thread for I/O, one that reads
// requests, one for the engine.
//
// TLS is left to a proxy in front. Prompts and answers are never logged.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/engine/engine.h"
#include "lowbit/server/http_server.h"
#include "lowbit/server/jobs.h"
#include "lowbit/server/router.h"

namespace lowbit::server {

struct ServerOptions {
  HttpOptions http;      // refusal and tick are the server's own
  RouterOptions router;  // allowed_hosts is filled in if it is empty, see below
  JobLimits jobs;
  std::string version;
  std::vector<std::string> model_names;  // at least one
  std::string tool_style;                // "": what the chat template asks for
  int max_choices = 16;                  // n, best_of
  std::function<void(const std::string& line)> log;  // what went wrong; may be empty
};

// What is served, but for the engine's part.
struct ServedModel {
  const TokenizerSpec& spec;
  Json generation_config;           // null: none
  OrderedJson facts;                // shown at /v1/models as "meta"
};

class Server {
 public:
  // Binds and starts to answer: 503 for what needs the model, until serve(). A server on a loopback
  // address without API keys answers to names of this machine alone, unless allowed_hosts says "*".
  // Throws kInvalidArgument or kIo.
  explicit Server(ServerOptions options);
  ~Server();  // stop()

  // From now on requests are answered, by an engine on a thread of its own. The engine must outlive
  // the server, and be used by nobody else.
  void serve(Engine& engine, const ServedModel& model);

  // Refuses new requests and waits until those that are here are answered. False if that took
  // longer than `seconds`, or `hurry` said so (asked 20 times a second; may be empty); what was
  // left has then been ended with an error.
  bool drain(double seconds, const std::function<bool()>& hurry = {});
  // Ends everything now.
  void stop();

  int port() const;
  // False once a step of the engine has failed: nothing will be answered any more.
  bool healthy() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lowbit::server

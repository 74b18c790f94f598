#include "lowbit/server/server.h"

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "lowbit/base/check.h"
#include "lowbit/server/chat.h"
#include "lowbit/server/chat_page.h"
#include "lowbit/server/completions.h"
#include "lowbit/server/metrics.h"
#include "lowbit/server/openapi.h"
#include "lowbit/server/responses.h"
#include "lowbit/server/tokens_api.h"
#include "lowbit/tokenizer/token_bytes.h"

namespace lowbit::server {

namespace {

enum class Phase { kLoading, kReady, kDraining, kStopped };

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::vector<std::string> allowed_hosts(const ServerOptions& options) {
  std::vector<std::string> hosts = options.router.allowed_hosts;
  for (const std::string& host : hosts) {
    if (host == "*") return {};
  }
  if (hosts.empty() && (!is_loopback(options.http.host) || !options.router.api_keys.empty())) {
    return {};
  }
  for (const char* own : {"localhost", "127.0.0.1", "[::1]"}) hosts.emplace_back(own);
  hosts.push_back(options.http.host);
  return hosts;
}

HttpResponse plain_text(int status, const std::string& text) {
  HttpResponse response;
  response.status = status;
  response.content_type = "text/plain; charset=utf-8";
  response.body = text;
  return response;
}

HttpResponse json_response(const OrderedJson& body) {
  HttpResponse response;
  response.body = dump_json(body);
  return response;
}

std::string decode_percents(const std::string& text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 &&
                        digit(text[i + 2]) >= 0;
    if (escape) {
      result += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace

struct Server::Impl {
  explicit Impl(ServerOptions server_options)
      : options(std::move(server_options)),
        page_policy(chat_page_policy()),
        openapi(dump_json(openapi_document(options.version))),
        router(router_options(), routes()),
        http(http_options(), [this](HttpRequest request, std::shared_ptr<Reply> reply) {
          router.handle(std::move(request), std::move(reply));
        }) {
    LOWBIT_CHECK(!options.model_names.empty(), "the model to serve has no name");
    http.start();
  }

  HttpOptions http_options() {
    HttpOptions result = options.http;
    result.refusal = [](int status, const std::string& message) {
      return error_response({status, message});
    };
    result.tick = [this] {
      if (jobs != nullptr) jobs->tick();
    };
    if (!result.log) result.log = options.log;
    result.fields.emplace_back("Server", "lowbit/" + options.version);
    result.fields.emplace_back("X-Content-Type-Options", "nosniff");
    return result;
  }

  RouterOptions router_options() {
    RouterOptions result = options.router;
    result.allowed_hosts = allowed_hosts(options);
    options.router.api_keys.clear();
    return result;
  }

  std::vector<Route> routes();
  Route generation(const char* path, Jobs::Prepare prepare);
  Route computation(const char* path, OrderedJson (*make)(const Api&, const OrderedJson&));
  Route page(const char* path, Access access, std::function<HttpResponse()> make);
  void check_ready() const;
  HttpResponse health() const;
  HttpResponse ready() const;
  OrderedJson model_json(const std::string& name) const;
  HttpResponse models() const;
  HttpResponse model(const std::string& name) const;
  HttpResponse metrics() const;
  HttpResponse chat_page_response() const;

  void log(const std::string& line) const {
    if (options.log) options.log(line);
  }

  // Runs on the I/O thread and waits for it.
  template <typename Task>
  auto ask(Task task) {
    auto result = std::make_shared<std::promise<decltype(task())>>();
    http.post([result, task] { result->set_value(task()); });
    return result->get_future().get();
  }

  ServerOptions options;
  std::string page_policy;
  std::string openapi;
  Router router;
  std::atomic<Phase> phase{Phase::kLoading};
  Engine* engine = nullptr;  // this and the next: set on the I/O thread by serve()
  OrderedJson facts;
  std::unique_ptr<Guides> guides;
  std::unique_ptr<Api> api;
  std::unique_ptr<Jobs> jobs;
  std::thread engine_thread;
  HttpServer http;
};

void Server::Impl::check_ready() const {
  const Phase now = phase;
  if (now == Phase::kReady && engine->stats().healthy) return;
  ApiError error(503, now == Phase::kLoading ? "The model is being loaded."
                      : now == Phase::kReady ? "The engine has failed."
                                             : "The server is shutting down.",
                 "", "unavailable");
  error.retry_after = now == Phase::kLoading ? 5 : 1;
  throw error;
}

Route Server::Impl::generation(const char* path, Jobs::Prepare prepare) {
  return {"POST", path, Access::kKey,
          [this, prepare = std::move(prepare)](HttpRequest request, std::shared_ptr<Reply> reply) {
            check_ready();
            jobs->start(std::move(request), std::move(reply), prepare);
          }};
}

Route Server::Impl::computation(const char* path,
                                OrderedJson (*make)(const Api&, const OrderedJson&)) {
  return {"POST", path, Access::kKey,
          [this, make](HttpRequest request, std::shared_ptr<Reply> reply) {
            check_ready();
            jobs->compute(std::move(request), std::move(reply), make);
          }};
}

Route Server::Impl::page(const char* path, Access access, std::function<HttpResponse()> make) {
  return {"GET", path, access,
          [make = std::move(make)](const HttpRequest&, const std::shared_ptr<Reply>& reply) {
            reply->send(make());
          }};
}

std::vector<Route> Server::Impl::routes() {
  std::vector<Route> table;
  table.push_back(generation("/v1/chat/completions", prepare_chat));
  table.push_back(generation("/v1/completions", prepare_completion));
  table.push_back(generation("/v1/responses", prepare_response));
  table.push_back(computation("/tokenize", tokenize));
  table.push_back(computation("/detokenize", detokenize));
  table.push_back(page("/v1/models", Access::kKey, [this] { return models(); }));
  table.push_back({"GET", "/v1/models/*", Access::kKey,
                   [this](const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
                     constexpr size_t kPrefix = std::string_view("/v1/models/").size();
                     reply->send(model(decode_percents(request.path.substr(kPrefix))));
                   }});
  table.push_back(page("/metrics", Access::kKey, [this] { return metrics(); }));
  table.push_back(page("/version", Access::kKey, [this] {
    return json_response({{"version", options.version}});
  }));
  table.push_back(page("/openapi.json", Access::kKey, [this] {
    HttpResponse response;
    response.body = openapi;
    return response;
  }));
  table.push_back(page("/health", Access::kPublic, [this] { return health(); }));
  table.push_back(page("/ping", Access::kPublic, [this] { return health(); }));
  table.push_back(page("/ready", Access::kPublic, [this] { return ready(); }));
  table.push_back(page("/", Access::kPublic, [this] { return chat_page_response(); }));
  return table;
}

HttpResponse Server::Impl::health() const {
  const bool failed = engine != nullptr && !engine->stats().healthy;
  if (failed) return error_response({503, "The engine has failed.", "", "unavailable"});
  if (phase == Phase::kLoading) {
    return error_response({503, "The model is being loaded.", "", "unavailable"});
  }
  return plain_text(200, "");
}

HttpResponse Server::Impl::ready() const {
  try {
    check_ready();
  } catch (const ApiError& error) {
    return error_response(error);
  }
  return plain_text(200, "");
}

OrderedJson Server::Impl::model_json(const std::string& name) const {
  OrderedJson json;
  json["id"] = name;
  json["object"] = "model";
  json["created"] = api->created;
  json["owned_by"] = "lowbit";
  json["root"] = api->name();
  json["parent"] = nullptr;
  json["max_model_len"] = api->max_model_len();
  json["meta"] = facts;
  return json;
}

HttpResponse Server::Impl::models() const {
  OrderedJson list = {{"object", "list"}, {"data", OrderedJson::array()}};
  if (api != nullptr) {
    for (const std::string& name : api->names) list["data"].push_back(model_json(name));
  }
  return json_response(list);
}

HttpResponse Server::Impl::model(const std::string& name) const {
  if (api == nullptr) check_ready();
  check_model(*api, {{"model", name}});
  return json_response(model_json(name));
}

HttpResponse Server::Impl::metrics() const {
  ServerGauges gauges;
  gauges.connections = http.connections();
  gauges.open_requests = jobs == nullptr ? 0 : jobs->open();
  gauges.ready = phase == Phase::kReady;
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  if (engine != nullptr) {
    const EngineStats stats = engine->stats();
    response.body = metrics_text(&stats, options.model_names[0], router.counts(), gauges);
  } else {
    response.body = metrics_text(nullptr, options.model_names[0], router.counts(), gauges);
  }
  return response;
}

HttpResponse Server::Impl::chat_page_response() const {
  HttpResponse response;
  response.content_type = "text/html; charset=utf-8";
  response.body = chat_page();
  response.fields = {{"Content-Security-Policy", page_policy},
                     {"Referrer-Policy", "no-referrer"},
                     {"Cache-Control", "no-cache"}};
  return response;
}

Server::Server(ServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}

Server::~Server() { stop(); }

void Server::serve(Engine& engine, const ServedModel& model) {
  std::vector<std::string> bytes = token_bytes(model.spec);
  auto guides = std::make_unique<Guides>(bytes, engine.model().config().eos_token_ids,
                                         engine.model().config().vocab_size);
  const std::string& chat_template = model.spec.chat_template;
  auto api = std::make_unique<Api>(Api{
      .engine = engine,
      .spec = model.spec,
      .token_bytes = std::move(bytes),
      .names = impl_->options.model_names,
      .chat_template =
          chat_template.empty() ? nullptr : std::make_unique<ChatTemplate>(chat_template),
      .tool_style = impl_->options.tool_style.empty()
                        ? detect_tool_style(chat_template)
                        : tool_style_by_name(impl_->options.tool_style),
      .defaults = default_sampling(model.generation_config, engine.model().config().vocab_size),
      .max_choices = impl_->options.max_choices,
      .guides = *guides,
      .created = unix_seconds()});
  impl_->ask([&] {
    impl_->guides = std::move(guides);
    impl_->api = std::move(api);
    impl_->facts = model.facts;
    impl_->engine = &engine;
    impl_->jobs = std::make_unique<Jobs>(
        *impl_->api, impl_->options.jobs,
        [impl = impl_.get()](std::function<void()> task) { impl->http.post(std::move(task)); },
        [impl = impl_.get()](const std::string& line) { impl->log(line); });
    impl_->phase = Phase::kReady;
    return true;
  });
  impl_->engine_thread = std::thread([&engine] { engine.run(); });
}

bool Server::drain(double seconds, const std::function<bool()>& hurry) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                           std::chrono::duration<double>(seconds));
  const auto open = [&] {
    return impl_->ask([impl = impl_.get()] {
      return impl->jobs == nullptr ? size_t{0} : impl->jobs->open();
    });
  };
  impl_->ask([impl = impl_.get()] {
    impl->phase = Phase::kDraining;
    impl->http.stop_keeping_alive();
    return true;
  });
  bool hurried = false;
  while (open() > 0 && Clock::now() < deadline && !(hurried = hurry && hurry())) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  if (open() == 0) return true;
  impl_->ask([impl = impl_.get()] {
    impl->jobs->fail_all({503, "The server is shutting down.", "", "unavailable"});
    return true;
  });
  // What has been written should still reach those who read.
  if (!hurried) std::this_thread::sleep_for(std::chrono::milliseconds(250));
  return false;
}

void Server::stop() {
  if (impl_->phase.exchange(Phase::kStopped) == Phase::kStopped) return;
  if (impl_->engine != nullptr) impl_->engine->stop();
  if (impl_->engine_thread.joinable()) impl_->engine_thread.join();
  impl_->http.stop();
  impl_->jobs.reset();
}

int Server::port() const { return impl_->http.port(); }

bool Server::healthy() const {
  return impl_->engine == nullptr || impl_->engine->stats().healthy;
}

}  // namespace lowbit::server

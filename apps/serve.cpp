// lowbit serve: the OpenAI-compatible HTTP server.
#include <sys/resource.h>

#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <memory>
#include <thread>

#include "commands.h"
#include "lowbit/base/check.h"
#include "lowbit/base/file.h"
#include "lowbit/base/limits.h"
#include "lowbit/engine/engine.h"
#include "lowbit/server/server.h"
#include "session.h"

namespace lowbit::app {

namespace {

constexpr int kEngineFailed = 70;
constexpr size_t kOwnDescriptors = 64;  // what the process needs besides connections

struct ServeCommand {
  std::string model;
  RunOptions run;
  EngineOptions engine;
  server::ServerOptions server;
  std::vector<std::string> names;
  std::string key_file;
  double body_mib = 8;
  double drain_seconds = 30;
  double kv_gib = 0;
  bool no_prefix_cache = false;
  bool quiet = false;
};

void log_line(const std::string& line) {
  char when[32];
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  std::strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &parts);
  std::fprintf(stderr, "%s %s\n", when, line.c_str());
}

// Counts SIGTERM and SIGINT on a thread of its own, as no handler could do what has to be done. To
// be made before any other thread, which then inherit the mask.
class Signals {
 public:
  Signals() {
    std::signal(SIGHUP, SIG_IGN);
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
    thread_ = std::thread([this] { wait(); });
  }
  ~Signals() {
    over_ = true;
    thread_.join();
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  int count() const { return count_; }
  int exit_code() const { return 128 + last_; }
  // Until now a signal has ended the process at once.
  void loaded() { loading_ = false; }

 private:
  void wait() {
    const timespec tick = {0, 50'000'000};
    while (!over_) {
      const int signal = sigtimedwait(&set_, nullptr, &tick);
      if (signal < 0) continue;
      last_ = signal;
      ++count_;
      if (loading_) std::_Exit(exit_code());
    }
  }

  sigset_t set_{}, before_{};
  std::atomic<int> count_{0}, last_{0};
  std::atomic<bool> over_{false}, loading_{true};
  std::thread thread_;
};

// As many connections as there can be descriptors for.
void raise_descriptor_limit(size_t& connections) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = connections + kOwnDescriptors;
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min(limit.rlim_max, wanted);
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= wanted) return;
  connections = limit.rlim_cur > 2 * kOwnDescriptors
                    ? static_cast<size_t>(limit.rlim_cur) - kOwnDescriptors
                    : kOwnDescriptors;
  log_line(concat("only ", connections, " connections at once: the limit of open files is ",
                  limit.rlim_cur, " (raise it with ulimit -n)"));
}

void read_keys(ServeCommand& command) {
  if (command.key_file.empty()) return;
  const std::string text = read_file(command.key_file, limits::kConfigBytes);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string key = text.substr(begin, end - begin);
    while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) key.pop_back();
    if (!key.empty()) command.server.router.api_keys.push_back(std::move(key));
    begin = end + 1;
  }
  LOWBIT_CHECK(!command.server.router.api_keys.empty(), command.key_file, " holds no API key");
}

std::string shown(double value, const char* unit) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g%s", value, unit);
  return text;
}

std::string shown_count(double value) {
  return value >= 1e9 ? shown(value / 1e9, "B") : shown(value / 1e6, "M");
}

OrderedJson facts_of(Session& session, const Engine& engine) {
  const ModelConfig& config = session.model().config();
  OrderedJson facts;
  facts["parameters"] = shown_count(static_cast<double>(config.parameters()));
  facts["format"] = session.checkpoint().format();
  facts["weights"] = shown(static_cast<double>(session.model().weight_bytes()) / (1 << 20), " MiB");
  facts["architecture"] = config.model_type;
  facts["layers"] = config.num_hidden_layers;
  facts["vocabulary"] = config.vocab_size;
  facts["backend"] = session.backend().description();
  facts["kernels"] = session.model().kernels();
  facts["kv_cache_tokens"] = engine.stats().kv_blocks * kBlockTokens;
  facts["kv_cache_dtype"] = kv_name_of(engine.stats().kv_dtype);
  return facts;
}

std::string model_name(const std::string& model) {
  const std::filesystem::path path = std::filesystem::path(model).lexically_normal();
  if (!std::filesystem::exists(path)) return model;  // ORG/NAME
  const std::string name =
      path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
  return name.ends_with(".gguf") ? name.substr(0, name.size() - 5) : name;
}

int serve(ServeCommand& command, Signals& signals, server::Server& server) {
  Session session(command.model, command.run);
  if (command.kv_gib > 0) {
    const int64_t block_bytes =
        session.model().config().kv_cache(1, command.run.kv_dtype()).bytes();
    command.engine.kv_blocks =
        std::max<int64_t>(1, static_cast<int64_t>(command.kv_gib * (1 << 30)) / block_bytes);
  }
  command.engine.kv_dtype = command.run.kv_dtype();
  command.engine.prefix_cache = !command.no_prefix_cache;
  Engine engine(session.model(), session.tokenizer(), std::move(command.engine));
  // Whatever happens, the server lets go of the engine first.
  const std::unique_ptr<server::Server, void (*)(server::Server*)> stop(
      &server, [](server::Server* running) { running->stop(); });
  server.serve(engine, {.spec = session.tokenizer_spec(),
                        .generation_config = session.checkpoint().generation_config(),
                        .facts = facts_of(session, engine)});
  signals.loaded();
  log_line(concat("ready after ", shown(session.load_seconds(), " s"), ": ",
                  command.server.model_names[0], " on http://", command.server.http.host, ":",
                  server.port(), " (", session.backend().description(), ")"));
  while (signals.count() == 0 && server.healthy()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  int code = 0;
  if (!server.healthy()) {
    log_line("the engine has failed: " + engine.stats().fault);
    code = kEngineFailed;
  } else {
    log_line("shutting down: waiting for open requests; a second signal ends them");
    const bool all = server.drain(command.drain_seconds, [&] { return signals.count() > 1; });
    if (!all) code = signals.count() > 1 ? signals.exit_code() : 1;
    log_line(all ? "all requests have been answered" : "some requests were cut off");
  }
  return code;
}

void execute(ServeCommand& command) {
  Signals signals;
  read_keys(command);
  auto& http = command.server.http;
  http.limits.body_bytes = static_cast<size_t>(command.body_mib * (1 << 20));
  raise_descriptor_limit(http.max_connections);
  command.server.version = LOWBIT_VERSION;
  command.server.model_names =
      command.names.empty() ? std::vector{model_name(command.model)} : command.names;
  command.server.log = log_line;
  if (!command.quiet) command.server.router.log = log_line;
  server::Server server(command.server);
  const int code = serve(command, signals, server);
  if (code != 0) throw Exit{code};
}

void add_server_options(CLI::App& sub, ServeCommand& command) {
  server::ServerOptions& options = command.server;
  sub.add_option("--host", options.http.host, "Address to listen on")->capture_default_str();
  sub.add_option("--port", options.http.port, "Port (0: any that is free)")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  sub.add_option("--api-key", options.router.api_keys, "Key that clients must send (repeatable)")
      ->envname("LOWBIT_API_KEY")
      ->allow_extra_args(false);
  sub.add_option("--api-key-file", command.key_file, "A file with one key a line");
  sub.add_option("--served-model-name", command.names,
                 "Names of the model in the API (default: that of its file or folder)");
  sub.add_option("--allowed-host", options.router.allowed_hosts,
                 "Names that a Host field may give besides those of this machine (*: any)")
      ->allow_extra_args(false);
  sub.add_option("--cors-origin", options.router.cors_origins,
                 "Origins of web pages that may use the API (*: all)")
      ->allow_extra_args(false);
  sub.add_option("--tool-call-parser", options.tool_style,
                 "How the model writes tool calls (default: what its chat template says)")
      ->check(CLI::IsMember({"hermes", "llama3_json", "mistral"}));
  sub.add_flag("-q,--quiet", command.quiet, "Do not log a line for every request");
}

void add_limits(CLI::App& sub, ServeCommand& command) {
  server::ServerOptions& options = command.server;
  const auto seconds = [&](const char* name, double& value, const char* what) {
    sub.add_option(name, value, what)->check(CLI::NonNegativeNumber)->capture_default_str();
  };
  sub.add_option("--max-num-seqs", command.engine.max_num_seqs, "Sequences that run at once")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  sub.add_option("--max-num-batched-tokens", command.engine.max_num_batched_tokens,
                 "Tokens in one step (0: --batch-size)")
      ->capture_default_str();
  sub.add_option("--max-queue", command.engine.max_waiting,
                 "Requests that wait to start; further ones get 429")
      ->capture_default_str();
  sub.add_option("--max-queue-tokens", command.engine.max_waiting_tokens, "Tokens of their prompts")
      ->capture_default_str();
  sub.add_option("--kv-cache-gib", command.kv_gib, "Size of the KV cache (0: what fits the rest)")
      ->check(CLI::NonNegativeNumber);
  sub.add_flag("--no-prefix-cache", command.no_prefix_cache, "Compute every prompt from the start");
  sub.add_option("--max-n", options.max_choices, "n and best_of at most")
      ->check(CLI::Range(1, 128))
      ->capture_default_str();
  sub.add_option("--max-body-mib", command.body_mib, "Size of a request body")
      ->check(CLI::Range(0.001, 1024.0))
      ->capture_default_str();
  sub.add_option("--max-connections", options.http.max_connections, "Connections at once")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  seconds("--header-timeout", options.http.header_seconds, "Seconds for the header of a request");
  seconds("--body-timeout", options.http.body_seconds, "Seconds for its body");
  seconds("--idle-timeout", options.http.idle_seconds, "Seconds between requests of a connection");
  seconds("--slow-client-timeout", options.http.slow_client_seconds,
          "Seconds that a client may read nothing");
  seconds("--first-token-timeout", options.jobs.first_token_seconds,
          "Seconds until an answer must have begun");
  seconds("--request-timeout", options.jobs.total_seconds, "Seconds for a whole answer");
  seconds("--drain-timeout", command.drain_seconds,
          "Seconds for open requests after the first SIGTERM or ctrl-C");
}

}  // namespace

void add_serve(CLI::App& program) {
  auto command = std::make_shared<ServeCommand>();
  CLI::App& sub =
      *program.add_subcommand("serve", "Serve a model over HTTP, as the OpenAI API; chat at /");
  sub.footer(
      "Example: lowbit serve -m model.gguf --port 8000\n"
      "         curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "           -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}'\n"
      "TLS is left to a proxy in front. Exit codes: 0 all answered, 1 cut off by --drain-timeout,\n"
      "70 the engine failed, 130 or 143 ended by a second signal.");
  add_model_option(sub, command->model);
  command->run.add_to(sub);
  add_server_options(sub, *command);
  add_limits(sub, *command);
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app

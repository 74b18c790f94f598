// A whole server over a tiny model, and a client for it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "lowbit/server/server.h"
#include "server/socket.h"
#include "support/tiny_model.h"
#include "support/tiny_tokenizer.h"

namespace lowbit::test {

constexpr int64_t kServedContext = 96;

inline TokenizerSpec served_spec() {
  TokenizerSpec spec = tiny_tokenizer_spec();
  spec.chat_template =
      "{% if tools %}T{% endif %}{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n"
      "{% endfor %}{% if add_generation_prompt %}a:{% endif %}";
  return spec;
}

struct Response {
  int status = 0;
  std::string head;
  std::string body;  // of chunks, their content

  OrderedJson json() const { return OrderedJson::parse(body, nullptr, false); }
  // Data of the server-sent events, "[DONE]" left out.
  std::vector<OrderedJson> events() const {
    std::vector<OrderedJson> found;
    for (size_t at = 0; (at = body.find("data: ", at)) != std::string::npos;) {
      at += 6;
      const std::string data = body.substr(at, body.find("\n\n", at) - at);
      if (data != "[DONE]") found.push_back(OrderedJson::parse(data));
    }
    return found;
  }
  bool done() const { return body.ends_with("data: [DONE]\n\n"); }
};

// All that comes until the server closes the connection.
inline Response read_response(Socket& socket) {
  const std::string answer = socket.receive();
  Response response;
  response.status = status_of(answer);
  const size_t end = answer.find("\r\n\r\n");
  if (end == std::string::npos) return response;
  response.head = answer.substr(0, end);
  response.body = answer.substr(end + 4);
  if (response.head.find("chunked") == std::string::npos) return response;
  std::string whole;
  for (size_t at = 0; at < response.body.size();) {
    const size_t size = std::stoul(response.body.substr(at, 16), nullptr, 16);
    at = response.body.find("\r\n", at) + 2;
    whole += response.body.substr(at, size);
    at += size + 2;
  }
  response.body = whole;
  return response;
}

// One request on a connection of its own.
inline Response exchange(int port, const std::string& request) {
  Socket socket(port);
  socket.send(request);
  return read_response(socket);
}

class TinyServer {
 public:
  explicit TinyServer(server::ServerOptions options = {}, EngineOptions engine_options = {},
                      bool serves = true)
      : checkpoint_(config()),
        model_(checkpoint_, *backend_,
               {.context = kServedContext, .max_batch = 64, .progress = false}) {
    engine_options.kv_dtype = DType::kF32;
    engine_ = std::make_unique<Engine>(model_, tokenizer_, std::move(engine_options));
    options.http.port = 0;
    options.version = "1.2.3";
    if (options.model_names.empty()) options.model_names = {"tiny", "org/tiny"};
    server_ = std::make_unique<server::Server>(std::move(options));
    if (serves) serve();
  }
  ~TinyServer() { server_->stop(); }

  void serve() {
    server_->serve(*engine_, {.spec = spec_, .generation_config = nullptr, .facts = {{"x", 1}}});
  }
  int port() const { return server_->port(); }
  server::Server& server() { return *server_; }
  Engine& engine() { return *engine_; }

  Response get(const std::string& path, const std::string& fields = "") const {
    return exchange(port(), test::get(path, "Connection: close\r\n" + fields));
  }
  Response post(const std::string& path, const OrderedJson& body,
                const std::string& fields = "") const {
    return exchange(port(), test::post(path, body.dump(), "Connection: close\r\n" + fields));
  }
  Response post_text(const std::string& path, const std::string& body) const {
    return exchange(port(), test::post(path, body, "Connection: close\r\n"));
  }

  // Until nothing runs and no block is held; false after ten seconds.
  bool wait_idle() const {
    for (int i = 0; i < 2'000; ++i) {
      const EngineStats stats = engine_->stats();
      if (stats.running == 0 && stats.waiting == 0 && stats.kv_blocks_held == 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

 private:
  static Json config() {
    Json config = tiny_goldens().model("llama").config;
    config["eos_token_id"] = 2;
    config["vocab_size"] = 101;  // what the tokenizer has
    return config;
  }

  std::unique_ptr<Backend> backend_ = make_backend("ref", {1, Activations::kDefault});
  TinyCheckpoint checkpoint_;
  Model model_;
  TokenizerSpec spec_ = served_spec();
  Tokenizer tokenizer_{spec_};
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<server::Server> server_;
};

}  // namespace lowbit::test

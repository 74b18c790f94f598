// What the server does when things do not go smoothly.
#include "lowbit/server/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "server/tiny_server.h"

namespace lowbit {
namespace {

using test::Response;
using test::Socket;
using test::TinyServer;

OrderedJson long_answer(int n = 1) {
  return {
      {"prompt", "Hello"}, {"max_tokens", 90}, {"ignore_eos", true}, {"n", n}, {"stream", true}};
}

TEST(Server, WhileLoadingOnlyHealthAndThePageAnswer) {
  TinyServer server({}, {}, false);
  EXPECT_EQ(server.get("/health").status, 503);
  EXPECT_EQ(server.get("/ready").status, 503);
  EXPECT_EQ(server.get("/").status, 200);
  EXPECT_EQ(server.get("/metrics").status, 200);
  EXPECT_TRUE(server.get("/v1/models").json()["data"].empty());
  const Response response = server.post("/v1/completions", long_answer());
  EXPECT_EQ(response.status, 503);
  EXPECT_NE(response.head.find("Retry-After"), std::string::npos);
  server.serve();
  EXPECT_EQ(server.get("/ready").status, 200);
  EXPECT_EQ(server.post("/v1/completions", long_answer()).status, 200);
}

TEST(Server, EveryPathButAFewWantsTheKey) {
  server::ServerOptions options;
  options.router.api_keys = {"right", "other"};
  const TinyServer server(options);
  const char* const open[] = {"/", "/health", "/ready", "/ping"};
  const char* const closed[] = {"/v1/models", "/v1/models/tiny", "/metrics", "/version",
                                "/openapi.json"};
  for (const char* path : open) EXPECT_EQ(server.get(path).status, 200) << path;
  for (const char* path : closed) {
    EXPECT_EQ(server.get(path).status, 401) << path;
    EXPECT_EQ(server.get(path, "Authorization: Bearer wrong\r\n").status, 401) << path;
    EXPECT_EQ(server.get(path, "Authorization: right\r\n").status, 401) << path;
    EXPECT_EQ(server.get(path, "Authorization: Bearer right\r\n").status, 200) << path;
    EXPECT_EQ(server.get(path, "Authorization: Bearer other\r\n").status, 200) << path;
  }
  for (const char* path :
       {"/v1/completions", "/v1/chat/completions", "/v1/responses", "/tokenize", "/detokenize"}) {
    const Response response = server.post(path, OrderedJson::object());
    EXPECT_EQ(response.status, 401) << path;
    EXPECT_EQ(response.json()["error"]["code"], "invalid_api_key");
  }
  for (const char* path : {"//v1/models", "/v1/models/", "/v1/../v1/models", "/V1/models",
                           "/%761/models", "/v1/models;x", "/health/../metrics"}) {
    EXPECT_NE(server.get(path).status, 200) << path;
  }
}

TEST(Server, UnknownPathsMethodsAndHeads) {
  const TinyServer server;
  EXPECT_EQ(server.get("/nothing").status, 404);
  const Response wrong = server.get("/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_NE(wrong.head.find("Allow: POST"), std::string::npos);
  EXPECT_EQ(server.post("/health", OrderedJson::object()).status, 405);
  const Response head = test::exchange(
      server.port(), "HEAD /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(head.status, 200);
  EXPECT_TRUE(head.body.empty());
}

TEST(Server, PagesOfOtherSitesCannotReachALoopbackServer) {
  const TinyServer server;
  const auto status = [&](const char* host) {
    return test::exchange(server.port(), std::string("GET /version HTTP/1.1\r\nHost: ") + host +
                                             "\r\nConnection: close\r\n\r\n")
        .status;
  };
  for (const char* host : {"localhost", "127.0.0.1:1234", "[::1]:80", "LOCALHOST:1"}) {
    EXPECT_EQ(status(host), 200) << host;
  }
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80"}) {
    EXPECT_EQ(status(host), 403) << host;
  }
}

TEST(Server, CorsIsOffUnlessAllowed) {
  const TinyServer closed;
  const char* origin = "Origin: https://app.example\r\n";
  EXPECT_EQ(closed.get("/version", origin).head.find("Access-Control"), std::string::npos);
  server::ServerOptions options;
  options.router.cors_origins = {"https://app.example"};
  const TinyServer server(options);
  EXPECT_NE(
      server.get("/version", origin).head.find("Access-Control-Allow-Origin: https://app.example"),
      std::string::npos);
  EXPECT_EQ(server.get("/version", "Origin: https://other.example\r\n").head.find("Access-Control"),
            std::string::npos);
  const Response preflight = test::exchange(
      server.port(),
      "OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example\r\n"
      "Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(preflight.status, 204);
}

TEST(Server, RequestIdsComeBackIfTheyAreHarmless) {
  const TinyServer server;
  EXPECT_NE(server.get("/version", "X-Request-Id: my-id.7\r\n").head.find("X-Request-Id: my-id.7"),
            std::string::npos);
  EXPECT_EQ(server.get("/version", "X-Request-Id: a b<script>\r\n").head.find("<script>"),
            std::string::npos);
}

TEST(Server, WhoGoesAwayLeavesNothingBehind) {
  const TinyServer server;
  for (int i = 0; i < 10; ++i) {
    for (const bool streams : {true, false}) {
      Socket socket(server.port());
      OrderedJson body = long_answer(8);
      body["stream"] = streams;
      socket.send(test::post("/v1/completions", body.dump()));
      if (streams && i % 2 == 0) socket.receive("data: ");
      socket.close();
    }
  }
  EXPECT_TRUE(server.wait_idle());
  EXPECT_EQ(server.post("/v1/completions", long_answer()).status, 200);
}

// The texts of all choices of a stream.
std::vector<std::string> texts_of(const Response& response) {
  std::vector<std::string> texts;
  for (const OrderedJson& event : response.events()) {
    for (const OrderedJson& choice : event["choices"]) {
      const auto index = choice["index"].get<size_t>();
      if (texts.size() <= index) texts.resize(index + 1);
      texts[index] += choice["text"].get<std::string>();
    }
  }
  return texts;
}

TEST(Server, ASlowReaderGetsItsWholeAnswerAndKeepsNobodyWaiting) {
  server::ServerOptions options;
  options.http.backlog_bytes = 8 << 10;
  EngineOptions engine_options;
  engine_options.max_num_seqs = 16;
  TinyServer server(options, std::move(engine_options));
  OrderedJson body = long_answer(16);
  body["logprobs"] = 20;  // much to read
  body["seed"] = 7;
  const std::vector<std::string> expected = texts_of(server.post("/v1/completions", body));
  ASSERT_EQ(expected.size(), 16u);

  Socket slow(server.port(), 32 << 10);
  slow.send(test::post("/v1/completions", body.dump(), "Connection: close\r\n"));
  EngineStats stats;
  for (int i = 0; i < 2'000 && (stats.running > 0 || stats.waiting < 16); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    stats = server.engine().stats();
  }
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.kv_blocks_held, 0) << "all places are free";
  EXPECT_EQ(server.post("/v1/completions", long_answer()).status, 200);
  const Response late = test::read_response(slow);
  EXPECT_TRUE(late.done());
  EXPECT_EQ(texts_of(late), expected);
  EXPECT_TRUE(server.wait_idle());
}

TEST(Server, MoreThanTheQueueHoldsIsToldWhenToComeBack) {
  EngineOptions engine;
  engine.max_num_seqs = 1;
  engine.max_waiting = 2;
  const TinyServer server({}, std::move(engine));
  std::vector<std::unique_ptr<Socket>> sockets;
  const std::string request = test::post("/v1/completions", long_answer(4).dump());
  for (int i = 0; i < 30; ++i) {
    sockets.push_back(std::make_unique<Socket>(server.port()));
    sockets.back()->send(request);
  }
  int answered = 0, refused = 0;
  for (const auto& socket : sockets) {
    const std::string answer = socket->receive("\r\n\r\n");
    if (test::status_of(answer) == 200) ++answered;
    if (test::status_of(answer) == 429) {
      ++refused;
      EXPECT_NE(answer.find("Retry-After: "), std::string::npos);
    }
  }
  EXPECT_EQ(answered + refused, 30);
  EXPECT_GE(answered, 1);
  sockets.clear();
  EXPECT_TRUE(server.wait_idle());
}

TEST(Server, AnswersDoNotDependOnWhatElseRuns) {
  const TinyServer server;
  OrderedJson body = {{"prompt", "Same"}, {"max_tokens", 30}, {"ignore_eos", true}, {"seed", 3}};
  const std::string alone = server.post("/v1/completions", body).json()["choices"][0]["text"];
  std::atomic<int> equal{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) {
        if (t % 2 == 0) {
          const OrderedJson json = server.post("/v1/completions", body).json();
          equal += json["choices"][0]["text"] == alone;
        } else {
          server.post("/v1/completions", long_answer(3));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, 20);
}

TEST(Server, DrainingAnswersWhatIsOpenAndRefusesTheRest) {
  TinyServer server;
  Socket open(server.port());
  open.send(test::post("/v1/completions", long_answer(16).dump()));
  open.receive("data: ");
  bool drained = false;
  std::thread drainer([&] { drained = server.server().drain(20); });
  for (int i = 0; i < 400 && server.get("/ready").status != 503; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(server.get("/ready").status, 503);
  EXPECT_EQ(server.get("/health").status, 200);
  const Response refused = server.post("/v1/completions", long_answer());
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(refused.head.find("Connection: close"), std::string::npos);
  EXPECT_NE(open.receive().find("[DONE]"), std::string::npos);
  drainer.join();
  EXPECT_TRUE(drained);
}

TEST(Server, ADrainThatTakesTooLongEndsStreamsWithAnError) {
  TinyServer server;
  Socket open(server.port());
  open.send(test::post("/v1/completions", long_answer(16).dump()));
  std::string answer = open.receive("data: ");
  const bool drained = server.server().drain(0);
  answer += open.receive();
  if (!drained) {  // a fast machine may have been done
    EXPECT_EQ(answer.find("[DONE]"), std::string::npos);
    EXPECT_NE(answer.find("event: error"), std::string::npos);
  }
  EXPECT_TRUE(server.wait_idle());
}

TEST(Server, AnswersThatTakeTooLongEnd) {
  server::ServerOptions options;
  options.jobs.total_seconds = 0;
  const TinyServer server(options);
  const Response response = server.post("/v1/completions", long_answer(16));
  EXPECT_FALSE(response.done() && response.status != 200);
  EXPECT_TRUE(server.wait_idle());
}

TEST(Server, LogsSayNothingOfPromptsAndKeys) {
  std::mutex mutex;
  std::string log;
  server::ServerOptions options;
  options.router.api_keys = {"secret-key"};
  options.router.log = options.log = [&](const std::string& line) {
    const std::lock_guard lock(mutex);
    log += line + "\n";
  };
  {
    const TinyServer server(options);
    const std::string key = "Authorization: Bearer secret-key\r\n";
    OrderedJson body = long_answer();
    body["prompt"] = "private words";
    body["max_tokens"] = 20;
    server.post("/v1/completions", body, key);
    body["temperature"] = "private words";
    server.post("/v1/completions", body, key);
    server.get("/nothing\x1b[31m", key);
  }
  EXPECT_NE(log.find("POST /v1/completions 200"), std::string::npos) << log;
  EXPECT_NE(log.find("POST /v1/completions 400"), std::string::npos) << log;
  EXPECT_EQ(log.find("private"), std::string::npos) << log;
  EXPECT_EQ(log.find("secret"), std::string::npos) << log;
  EXPECT_EQ(log.find('\x1b'), std::string::npos) << log;
}

}  // namespace
}  // namespace lowbit

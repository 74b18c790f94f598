#include "lowbit/server/http_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "lowbit/base/check.h"
#include "server/socket.h"

namespace lowbit::server {
namespace {

using test::get;
using test::post;
using test::Socket;
using test::status_of;

// Answers /echo with the body, /stream with a stream that tests write to, /later when told to.
class TestServer {
 public:
  explicit TestServer(HttpOptions options = {}) {
    options.port = 0;
    options.refusal = [](int status, const std::string& message) {
      return HttpResponse{.status = status, .content_type = "text/plain", .body = message};
    };
    http_ = std::make_shared<HttpServer>(
        std::move(options), [this](HttpRequest request, const std::shared_ptr<Reply>& reply) {
          handle(std::move(request), reply);
        });
    http_->start();
  }

  int port() const { return http_->port(); }
  int gone() const { return gone_; }
  HttpServer& http() { return *http_; }

  // Waits for the reply of the next /stream or /later. Whoever lets go of it, it ends where all
  // that happens to a reply must: on the I/O thread.
  std::shared_ptr<Reply> reply() {
    for (int i = 0; i < 2'000; ++i) {
      {
        const std::lock_guard lock(mutex_);
        if (!replies_.empty()) {
          std::shared_ptr<Reply> reply = replies_.front();
          replies_.erase(replies_.begin());
          return on_its_thread(std::move(reply));
        }
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return nullptr;
  }
  // Runs a task on the I/O thread and waits.
  void run(const std::function<void()>& task) {
    std::promise<void> done;
    http_->post([&] {
      task();
      done.set_value();
    });
    done.get_future().get();
  }
  bool wait_gone(int count, double seconds = 10) const {
    for (int i = 0; i < seconds * 200 && gone_ < count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return gone_ >= count;
  }

 private:
  std::shared_ptr<Reply> on_its_thread(std::shared_ptr<Reply> reply) {
    Reply* const raw = reply.get();
    return {raw, [server = std::weak_ptr(http_), reply = std::move(reply)](Reply*) mutable {
              if (const auto http = server.lock()) http->post([reply = std::move(reply)] {});
            }};
  }
  void handle(HttpRequest request, const std::shared_ptr<Reply>& reply) {
    if (request.path == "/echo") {
      return reply->send({.content_type = "text/plain", .body = std::move(request.body)});
    }
    if (request.path == "/throw") throw std::runtime_error("secret");
    if (request.path == "/forget") return;
    reply->on_gone([this] { ++gone_; });
    if (request.path == "/stream") reply->begin({.content_type = "text/plain", .body = "begin"});
    const std::lock_guard lock(mutex_);
    replies_.push_back(reply);
  }

  std::mutex mutex_;
  std::vector<std::shared_ptr<Reply>> replies_;
  std::atomic<int> gone_{0};
  std::shared_ptr<HttpServer> http_;
};

TEST(HttpServer, AnswersManyRequestsOnOneConnection) {
  TestServer server;
  Socket socket(server.port());
  for (int i = 0; i < 20; ++i) {
    const std::string body = "body " + std::to_string(i);
    socket.send(post("/echo", body));
    const std::string answer = socket.receive(body);
    EXPECT_EQ(status_of(answer), 200);
    EXPECT_NE(answer.find("Content-Length: " + std::to_string(body.size())), std::string::npos);
  }
}

TEST(HttpServer, PipelinedRequestsAreAnsweredInOrder) {
  TestServer server;
  Socket socket(server.port());
  std::string all;
  for (int i = 0; i < 200; ++i) all += post("/echo", "<" + std::to_string(i) + ">");
  socket.send(all);
  const std::string answer = socket.receive("<199>");
  size_t at = 0;
  for (int i = 0; i < 200; ++i) {
    at = answer.find("<" + std::to_string(i) + ">", at);
    ASSERT_NE(at, std::string::npos) << i;
  }
}

TEST(HttpServer, HeadHasTheLengthButNotTheBody) {
  TestServer server;
  Socket socket(server.port());
  socket.send("HEAD /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + get("/echo"));
  const std::string answer = socket.receive("Content-Length: 0");
  EXPECT_NE(answer.find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_EQ(answer.find("hello"), std::string::npos);
}

TEST(HttpServer, StreamsInChunksAndPlainlyForHttp10) {
  TestServer server;
  Socket socket(server.port()), old(server.port());
  socket.send(get("/stream"));
  auto reply = server.reply();
  EXPECT_NE(socket.receive("begin\r\n").find("Transfer-Encoding: chunked"), std::string::npos);
  server.run([&] { reply->write("more"); });
  EXPECT_EQ(socket.receive("more\r\n"), "4\r\nmore\r\n");  // at once
  server.run([&] { reply->end(); });
  EXPECT_EQ(socket.receive("0\r\n\r\n"), "0\r\n\r\n");
  socket.send(post("/echo", "again"));
  EXPECT_EQ(status_of(socket.receive("again")), 200);

  old.send("GET /stream HTTP/1.0\r\n\r\n");
  reply = server.reply();
  server.run([&] {
    reply->write("all");
    reply->end();
  });
  const std::string answer = old.receive();
  EXPECT_TRUE(old.closed());
  EXPECT_EQ(answer.find("chunked"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\nbeginall")) << answer;
}

TEST(HttpServer, AClientThatGoesAwayIsNoticedAtOnce) {
  TestServer server;
  for (const char* path : {"/stream", "/later"}) {
    Socket socket(server.port());
    socket.send(get(path));
    const auto reply = server.reply();
    const int before = server.gone();
    socket.close();
    EXPECT_TRUE(server.wait_gone(before + 1, 2)) << path;
    server.run([&] {
      reply->write("too late");
      reply->end();
      reply->send({});
    });
    EXPECT_EQ(server.gone(), before + 1);  // once
  }
}

TEST(HttpServer, AReaderThatStallsIsCutOffAndDisturbsNobody) {
  HttpOptions options;
  options.stream_bytes = 64 << 10;
  TestServer server(options);
  Socket slow(server.port(), 4'096);
  slow.send(get("/stream"));
  const auto reply = server.reply();
  const std::string piece(16 << 10, 'x');
  for (int i = 0; i < 2'000 && server.gone() == 0; ++i) server.run([&] { reply->write(piece); });
  EXPECT_TRUE(server.wait_gone(1));
  Socket other(server.port());
  other.send(post("/echo", "fine"));
  EXPECT_EQ(status_of(other.receive("fine")), 200);
}

TEST(HttpServer, WritersHearOfSlowReaders) {
  HttpOptions options;
  options.backlog_bytes = 32 << 10;
  options.stream_bytes = 64 << 20;
  TestServer server(options);
  Socket slow(server.port(), 4'096);
  slow.send(get("/stream"));
  const auto reply = server.reply();
  std::vector<bool> heard;
  server.run([&] { reply->on_backlog([&](bool much) { heard.push_back(much); }); });
  const std::string piece(16 << 10, 'x');
  const auto heard_of = [&](size_t times) {
    bool yes = false;
    server.run([&] { yes = heard.size() >= times; });
    return yes;
  };
  for (int i = 0; i < 2'000 && !heard_of(1); ++i) server.run([&] { reply->write(piece); });
  EXPECT_TRUE(heard_of(1));
  server.run([&] { reply->end(); });
  slow.receive("0\r\n\r\n");
  EXPECT_EQ(heard, (std::vector<bool>{true})) << "nothing after the end";

  Socket again(server.port(), 4'096);
  again.send(get("/stream"));
  const auto second = server.reply();
  heard.clear();
  server.run([&] { second->on_backlog([&](bool much) { heard.push_back(much); }); });
  for (int i = 0; i < 2'000 && !heard_of(1); ++i) server.run([&] { second->write(piece); });
  again.receive("never", 2);
  for (int i = 0; i < 500 && !heard_of(2); ++i) again.receive("never", 0.01);
  EXPECT_EQ(heard, (std::vector<bool>{true, false}));
}

TEST(HttpServer, AReaderThatStopsIsClosedAfterItsTime) {
  HttpOptions options;
  options.slow_client_seconds = 0.5;
  options.stream_bytes = 64 << 20;
  TestServer server(options);
  Socket slow(server.port(), 4'096);
  slow.send(get("/stream"));
  const auto reply = server.reply();
  server.run([&] { reply->write(std::string(16 << 20, 'x')); });
  EXPECT_TRUE(server.wait_gone(1, 5));
}

TEST(HttpServer, TimeoutsCloseWhoDoesNotSend) {
  HttpOptions options;
  options.header_seconds = 0.4;
  options.body_seconds = 0.4;
  options.idle_seconds = 0.4;
  TestServer server(options);
  Socket silent(server.port()), header(server.port()), body(server.port()), idle(server.port());
  header.send("GET / HTT");
  body.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
  idle.send(post("/echo", "x"));
  EXPECT_EQ(silent.receive(), "");
  EXPECT_EQ(status_of(header.receive()), 408);
  EXPECT_EQ(status_of(body.receive()), 408);
  EXPECT_EQ(status_of(idle.receive()), 200);
  EXPECT_TRUE(silent.closed() && header.closed() && body.closed() && idle.closed());
}

TEST(HttpServer, ATooLargeBodyIsRefusedBeforeItComes) {
  HttpOptions options;
  options.limits.body_bytes = 1'000;
  TestServer server(options);
  Socket socket(server.port());
  socket.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
  EXPECT_EQ(status_of(socket.receive("\r\n\r\n")), 413);
  // One that sends on regardless still gets to read why.
  Socket pusher(server.port());
  pusher.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" +
              std::string(5'000, 'x'));
  const std::string answer = pusher.receive();
  EXPECT_EQ(status_of(answer), 413);
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
}

TEST(HttpServer, WhoAsksFirstIsToldToContinue) {
  TestServer server;
  Socket socket(server.port());
  socket.send(
      "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(socket.receive("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  socket.send("hello");
  EXPECT_EQ(status_of(socket.receive("hello")), 200);
}

TEST(HttpServer, GarbageIsAnsweredAndTheConnectionClosed) {
  TestServer server;
  Socket socket(server.port());
  socket.send("\x16\x03\x01 garbage\r\n\r\n" + post("/echo", "smuggled"));
  const std::string answer = socket.receive();
  EXPECT_EQ(status_of(answer), 400);
  EXPECT_EQ(answer.find("smuggled"), std::string::npos);
  EXPECT_TRUE(socket.closed());
}

TEST(HttpServer, AHandlerThatThrowsOrForgetsEndsOneExchangeOnly) {
  TestServer server;
  Socket thrower(server.port()), forgetter(server.port()), other(server.port());
  thrower.send(get("/throw"));
  const std::string answer = thrower.receive("internal error");
  EXPECT_EQ(status_of(answer), 500);
  EXPECT_EQ(answer.find("secret"), std::string::npos);
  forgetter.send(get("/forget"));
  EXPECT_EQ(forgetter.receive(), "");
  EXPECT_TRUE(forgetter.closed());
  other.send(post("/echo", "fine"));
  EXPECT_EQ(status_of(other.receive("fine")), 200);
}

TEST(HttpServer, ConnectionsAboveTheLimitAreToldToComeBack) {
  HttpOptions options;
  options.max_connections = 3;
  TestServer server(options);
  std::vector<std::unique_ptr<Socket>> sockets;
  for (int i = 0; i < 3; ++i) {
    sockets.push_back(std::make_unique<Socket>(server.port()));
    sockets.back()->send(post("/echo", "x"));
    EXPECT_EQ(status_of(sockets.back()->receive("x")), 200);
  }
  Socket fourth(server.port());
  const std::string answer = fourth.receive();
  EXPECT_EQ(status_of(answer), 503);
  EXPECT_NE(answer.find("Retry-After"), std::string::npos);
  sockets.clear();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  Socket fifth(server.port());
  fifth.send(post("/echo", "y"));
  EXPECT_EQ(status_of(fifth.receive("y")), 200);
}

TEST(HttpServer, ATakenPortIsAnErrorThatSaysSo) {
  TestServer server;
  HttpOptions options;
  options.port = server.port();
  try {
    HttpServer second(options, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kIo);
    EXPECT_NE(std::string(error.what()).find("--port"), std::string::npos);
  }
  options.host = "not a host";
  EXPECT_THROW(HttpServer(options, {}), Error);
}

TEST(HttpServer, StoppingCutsEverybody) {
  auto server = std::make_unique<TestServer>();
  Socket idle(server->port()), busy(server->port());
  busy.send(get("/stream"));
  const auto reply = server->reply();
  server->http().stop();
  idle.receive();
  busy.receive();
  EXPECT_TRUE(idle.closed() && busy.closed());
  reply->write("nobody");  // too late, and harmless
  server.reset();
}

}  // namespace
}  // namespace lowbit::server

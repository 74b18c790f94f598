#include "lowbit/bench/server_load.h"

#include <gtest/gtest.h>

#include <thread>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/bench/event_stream.h"
#include "lowbit/bench/http_exchange.h"
#include "server/tiny_server.h"

namespace lowbit {
namespace {

std::vector<std::string> events_of(const std::string& text, size_t piece) {
  std::vector<std::string> found;
  EventStream stream;
  for (size_t at = 0; at < text.size(); at += piece) {
    stream.push(std::string_view(text).substr(at, piece),
                [&](std::string_view data) { found.emplace_back(data); });
  }
  return found;
}

TEST(EventStream, EventsDoNotDependOnHowTheBytesAreCut) {
  const std::string text =
      ": a comment\n\ndata: one\n\nevent: x\rdata:two\rdata:  2\r\rid: 7\r\ndata\r\n\r\n\n\n"
      "data: last\r\n\r\ndata: unfinished\n";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    EXPECT_EQ(events_of(text, piece), (std::vector<std::string>{"one", "two\n 2", "", "last"}))
        << piece;
  }
}

TEST(EventStream, EndlessEventsAreRefused) {
  EventStream stream;
  const std::string megabyte(1 << 20, 'x');
  const auto flood = [&] {
    for (size_t i = 0; i <= limits::kEventBytes >> 20; ++i) stream.push(megabyte, {});
  };
  EXPECT_THROW(flood(), Error);
}

TEST(HttpUrl, IsTakenApart) {
  const HttpUrl url = parse_http_url("http://example.org:8000/openai/");
  EXPECT_EQ(url.host + "|" + url.port + "|" + url.path, "example.org|8000|/openai");
  EXPECT_EQ(parse_http_url("http://[::1]:80").host, "::1");
  EXPECT_EQ(parse_http_url("http://localhost").port, "80");
  for (const char* bad : {"https://x", "localhost:80", "http://", "http://:1", "http://x:"}) {
    EXPECT_THROW(parse_http_url(bad), Error) << bad;
  }
}

ServerLoadOptions at(int port) {
  ServerLoadOptions options;
  options.url = "http://127.0.0.1:" + std::to_string(port);
  options.timeout_seconds = 5;
  return options;
}

ServerRequest completion(int max_tokens) {
  return {{{"model", "tiny"},
           {"prompt", {5, 6, 7}},
           {"max_tokens", max_tokens},
           {"stream", true},
           {"ignore_eos", true},
           {"stream_options", {{"include_usage", true}}}},
          3};
}

TEST(ServerLoad, CountsWhatOurServerAnswers) {
  const test::TinyServer server;
  ServerLoadOptions options = at(server.port());
  EXPECT_EQ(first_model_name(options), "tiny");
  for (const int64_t concurrency : {0, 3}) {
    options.max_concurrency = concurrency;
    const std::vector<ServerRequest> requests(10, completion(12));
    const ServerLoadResult result = measure_server(requests, options);
    EXPECT_EQ(result.failed, 0) << result.first_fault;
    EXPECT_EQ(result.load.requests, 10);
    EXPECT_EQ(result.load.output_tokens, 120);
    EXPECT_EQ(result.load.input_tokens, 30);
    EXPECT_GT(result.load.ttft.p50, 0);
  }
}

TEST(ServerLoad, ChatsAreMeasuredToo) {
  const test::TinyServer server;
  ServerLoadOptions options = at(server.port());
  options.endpoint = "/v1/chat/completions";
  ServerRequest chat = completion(8);
  chat.body.erase("prompt");
  chat.body["messages"] = Json::array({{{"role", "user"}, {"content", "hi"}}});
  const ServerLoadResult result = measure_server({chat, chat}, options);
  EXPECT_EQ(result.failed, 0) << result.first_fault;
  EXPECT_EQ(result.load.output_tokens, 16);
}

TEST(ServerLoad, ErrorsAreCountedAndShown) {
  const test::TinyServer server;
  ServerRequest bad = completion(5);
  bad.body["temperature"] = -3;
  const ServerLoadResult result =
      measure_server({completion(5), bad, completion(5)}, at(server.port()));
  EXPECT_EQ(result.failed, 1);
  EXPECT_EQ(result.load.requests, 2);
  EXPECT_NE(result.first_fault.find("status 400"), std::string::npos) << result.first_fault;
  EXPECT_NE(result.first_fault.find("temperature"), std::string::npos) << result.first_fault;
}

// Answers every connection with the same bytes, then closes it.
class Parrot {
 public:
  explicit Parrot(std::string bytes) : bytes_(std::move(bytes)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    listen(listener_, 16);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~Parrot() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  int port() const { return port_; }

 private:
  void serve() {
    for (;;) {
      const int fd = accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      char buffer[65536];
      (void)!recv(fd, buffer, sizeof buffer, 0);
      (void)!::send(fd, bytes_.data(), bytes_.size(), MSG_NOSIGNAL);
      shutdown(fd, SHUT_WR);
      close(fd);
    }
  }

  std::string bytes_;
  int listener_ = -1, port_ = 0;
  std::thread thread_;
};

ServerLoadResult against(const std::string& bytes) {
  const Parrot parrot(bytes);
  return measure_server({completion(3)}, at(parrot.port()));
}

TEST(ServerLoad, StreamsOfOtherServersAreUnderstood) {
  const std::string text =
      "data: {\"choices\": [{\"text\": \"a\", \"finish_reason\": null}]}\r\n\r\n";
  const std::string end =
      "data: {\"choices\": [{\"text\": \"\", \"finish_reason\": \"length\"}]}\r\n\r\n";
  // Without chunks, without usage, without [DONE].
  const ServerLoadResult plain =
      against("HTTP/1.0 200 OK\r\n\r\n" + text + ": ping\n\n" + text + end);
  EXPECT_EQ(plain.load.output_tokens, 2);
  const std::string content =
      "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(text.size() + end.size()) + "\r\n\r\n";
  EXPECT_EQ(against(content + text + end).load.output_tokens, 1);
}

TEST(ServerLoad, StreamsThatBreakOffAreFailures) {
  const std::string head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string text = "data: {\"choices\": [{\"text\": \"a\"}]}\n\n";
  for (const std::string& bytes :
       {std::string(), std::string("garbage\r\n\r\n"), head, head + "2a\r\n" + text,
        "HTTP/1.0 200 OK\r\n\r\n" + text, std::string("HTTP/1.0 200 OK\r\n\r\ndata: {\n\n"),
        "HTTP/1.0 200 OK\r\n\r\n" + text + "data: {\"error\": {\"message\": \"x\"}}\n\n",
        std::string("HTTP/1.0 500 X\r\n\r\noh")}) {
    EXPECT_THROW(against(bytes), Error) << bytes;
  }
}

TEST(ServerLoad, RefusalsAreTimedApart) {
  const ServerLoadResult result =
      against("HTTP/1.1 429 X\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n");
  EXPECT_EQ(result.refused, 1);
  EXPECT_EQ(result.failed, 0);
  EXPECT_GT(result.refusal.p99, 0);
}

TEST(ServerLoad, ServersThatAreNotThereAreErrors) {
  EXPECT_THROW(measure_server({completion(3)}, at(1)), Error);
  EXPECT_THROW(first_model_name(at(1)), Error);
}

}  // namespace
}  // namespace lowbit

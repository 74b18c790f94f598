#include "lowbit/server/request_parser.h"

#include <gtest/gtest.h>

namespace lowbit::server {
namespace {

using namespace std::string_literals;

constexpr char kPost[] =
    "POST /v1/x?a=b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nX-A:  b c \r\n\r\nhello";

// Feeds the text in pieces of `step` bytes, as a connection does.
HttpRequest parse(std::string_view text, size_t step = 1 << 20, const HttpLimits& limits = {}) {
  RequestParser parser(limits);
  std::string pending;
  for (size_t at = 0; at < text.size() && !parser.done(); at += step) {
    pending += text.substr(at, step);
    pending.erase(0, parser.push(pending));
  }
  if (!parser.done()) throw HttpError(0, "not complete");
  return parser.take();
}

int status(std::string_view text, const HttpLimits& limits = {}) {
  for (const size_t step : {size_t{1}, size_t{1} << 20}) {
    try {
      parse(text, step, limits);
    } catch (const HttpError& error) {
      if (step > 1) return error.status();
      continue;
    }
    return 200;
  }
  return -1;
}

TEST(RequestParser, ReadsARequestHoweverItIsCut) {
  for (size_t step = 1; step <= sizeof kPost; ++step) {
    const HttpRequest request = parse(kPost, step);
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/v1/x");
    EXPECT_EQ(request.query, "a=b");
    EXPECT_EQ(request.body, "hello");
    EXPECT_EQ(*request.field("x-a"), "b c");
    EXPECT_TRUE(request.keep_alive);
    EXPECT_TRUE(request.http_1_1);
  }
}

TEST(RequestParser, StopsBehindTheEndOfTheRequest) {
  RequestParser parser({});
  const std::string two = std::string(kPost) + "GET / HTTP/1.1\r\n";
  EXPECT_EQ(parser.push(two), sizeof kPost - 1);
  EXPECT_TRUE(parser.done());
}

TEST(RequestParser, ReadsChunks) {
  const char* text =
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n";
  for (const size_t step : {1, 2, 7, 1000}) EXPECT_EQ(parse(text, step).body, "abcde");
}

TEST(RequestParser, KnowsWhenToKeepTheConnection) {
  EXPECT_FALSE(parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").keep_alive);
  EXPECT_FALSE(parse("GET / HTTP/1.0\r\n\r\n").keep_alive);
  EXPECT_TRUE(parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
  EXPECT_EQ(parse("GET http://a.example/x/y?z HTTP/1.1\r\nHost: a\r\n\r\n").path, "/x/y");
}

TEST(RequestParser, RefusesWhatAProxyCouldReadInAnotherWay) {
  const std::string host = "POST / HTTP/1.1\r\nHost: a\r\n";
  const std::pair<std::string, int> cases[] = {
      {host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {host + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
      {host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
      {host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
      {host + "Content-Length: 3, 3\r\n\r\nabc", 400},
      {host + "Content-Length: +3\r\n\r\nabc", 400},
      {host + "Content-Length: 0x3\r\n\r\nabc", 400},
      {host + "Content-Length: -1\r\n\r\n", 400},
      {host + "Content-Length: 99999999999999999999999\r\n\r\n", 400},
      {host + "Content-Length:\r\n\r\n", 400},
      {host + "Transfer-Encoding: gzip\r\n\r\n", 501},
      {host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501},
      {host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
      {host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
      {host + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", 400},
      {host + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400},
      {host + "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", 400},
      {host + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\nabc\r\n", 400},
      {host + "Host: b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
      {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
      {"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505},
      {"GET /\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: a\n\n", 505},
      {"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"s, 400},
      {"G\x80T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET / /x HTTP/1.1\r\nHost: a\r\n\r\n", 505},
      {"\x16\x03\x01\x02\x00\x01\x00", 400},  // TLS
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(status(text), expected) << text;
}

TEST(RequestParser, EveryBoundHolds) {
  HttpLimits limits;
  limits.target_bytes = 100;
  limits.header_bytes = 1'000;
  limits.field_count = 10;
  limits.body_bytes = 50;
  const std::string host = "POST / HTTP/1.1\r\nHost: a\r\n";
  EXPECT_EQ(status("GET /" + std::string(200, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n", limits), 414);
  EXPECT_EQ(status(host + "X: " + std::string(2'000, 'x') + "\r\n\r\n", limits), 431);
  EXPECT_EQ(status(host + std::string(5'000, 'x'), limits), 431);  // no line end at all
  EXPECT_EQ(status(std::string(5'000, 'G'), limits), 431);
  std::string many = host;
  for (int i = 0; i < 12; ++i) many += "X: y\r\n";
  EXPECT_EQ(status(many + "\r\n", limits), 431);
  EXPECT_EQ(status(host + "Content-Length: 51\r\n\r\n", limits), 413);
  EXPECT_EQ(status(host + "Content-Length: 50\r\n\r\n" + std::string(50, 'x'), limits), 200);
  const std::string chunked = host + "Transfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(status(chunked + "33\r\n" + std::string(51, 'x') + "\r\n0\r\n\r\n", limits), 413);
  std::string chunks = chunked;
  for (int i = 0; i < 51; ++i) chunks += "1\r\nx\r\n";
  EXPECT_EQ(status(chunks, limits), 413);
  EXPECT_EQ(status(chunked + "1;" + std::string(3'000, 'x') + "\r\nx\r\n0\r\n\r\n", limits), 400);
}

}  // namespace
}  // namespace lowbit::server

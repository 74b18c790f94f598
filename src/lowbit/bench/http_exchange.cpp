#include "lowbit/bench/http_exchange.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/write.hpp>
#include <exception>
#include <limits>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"

namespace lowbit {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using beast::error_code;

}  // namespace

HttpUrl parse_http_url(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  LOWBIT_CHECK(url.starts_with(kScheme), "\"", url, "\" is not an address such as ",
               "http://127.0.0.1:8000 (for https, measure behind the proxy)");
  const std::string rest = url.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  HttpUrl parts{rest.substr(0, slash), "80", rest.substr(slash)};
  while (parts.path.ends_with('/')) parts.path.pop_back();
  const size_t bracket = parts.host.rfind(']');  // of an IPv6 address
  const size_t colon = parts.host.rfind(':');
  if (colon != std::string::npos && (bracket == std::string::npos || colon > bracket)) {
    parts.port = parts.host.substr(colon + 1);
    parts.host.resize(colon);
  }
  if (parts.host.starts_with('[') && parts.host.ends_with(']')) {
    parts.host = parts.host.substr(1, parts.host.size() - 2);
  }
  LOWBIT_CHECK(!parts.host.empty() && !parts.port.empty(), "\"", url, "\" names no host or port");
  return parts;
}

HttpExchange::HttpExchange(asio::io_context& io, std::string request, double timeout_seconds,
                           Callbacks callbacks)
    : request_(std::move(request)),
      timeout_seconds_(timeout_seconds),
      callbacks_(std::move(callbacks)),
      stream_(io) {
  parser_.body_limit(std::numeric_limits<uint64_t>::max());  // pieces are taken out as they come
}

void HttpExchange::expire_later() {
  stream_.expires_after(std::chrono::milliseconds(static_cast<int64_t>(timeout_seconds_ * 1000)));
}

void HttpExchange::start(const asio::ip::tcp::resolver::results_type& endpoints) {
  expire_later();
  stream_.async_connect(endpoints, [self = shared_from_this()](const error_code& error, auto&&) {
    if (error) return self->finish("cannot connect: " + error.message());
    error_code ignored;
    self->stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
    self->send();
  });
}

void HttpExchange::send() {
  asio::async_write(stream_, asio::buffer(request_),
                    [self = shared_from_this()](const error_code& error, size_t) {
                      if (error) return self->finish("cannot send: " + error.message());
                      self->read_header();
                    });
}

void HttpExchange::read_header() {
  expire_later();
  beast::http::async_read_header(
      stream_, buffer_, parser_, [self = shared_from_this()](const error_code& error, size_t) {
        if (error) return self->finish("no answer: " + error.message());
        self->status_ = static_cast<int>(self->parser_.get().result_int());
        self->read_body();
      });
}

void HttpExchange::read_body() {
  std::string& body = parser_.get().body();
  if (!body.empty()) {
    try {
      callbacks_.body(body);
    } catch (const std::exception& error) {
      return finish(error.what());
    }
    body.clear();
  }
  if (parser_.is_done()) return finish("");
  expire_later();
  beast::http::async_read_some(stream_, buffer_, parser_,
                               [self = shared_from_this()](const error_code& error, size_t) {
                                 if (error && error != beast::http::error::end_of_stream) {
                                   return self->finish("broken off: " + error.message());
                                 }
                                 if (error) return self->finish("");
                                 self->read_body();
                               });
}

void HttpExchange::finish(const std::string& fault) {
  error_code ignored;
  stream_.socket().close(ignored);
  if (callbacks_.end) std::exchange(callbacks_.end, nullptr)(status_, fault);
}

}  // namespace lowbit

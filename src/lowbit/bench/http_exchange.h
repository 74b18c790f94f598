// One HTTP exchange of the load generator: a request, and its answer as it comes. Boost.Beast.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace lowbit {

struct HttpUrl {
  std::string host, port;
  std::string path;  // before the endpoint; "" or "/prefix"
};
// Throws kInvalidArgument unless it is http://host[:port][/path].
HttpUrl parse_http_url(const std::string& url);

class HttpExchange : public std::enable_shared_from_this<HttpExchange> {
 public:
  struct Callbacks {
    std::function<void(std::string_view bytes)> body;  // pieces of the body; throwing ends it
    // The end: the status (0: no answer), and what went wrong ("": nothing).
    std::function<void(int status, const std::string& fault)> end;
  };

  // request: head and body as they go over the wire.
  HttpExchange(boost::asio::io_context& io, std::string request, double timeout_seconds,
               Callbacks callbacks);
  void start(const boost::asio::ip::tcp::resolver::results_type& endpoints);

 private:
  void send();
  void read_header();
  void read_body();
  void finish(const std::string& fault);
  void expire_later();

  std::string request_;
  double timeout_seconds_;
  Callbacks callbacks_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  boost::beast::http::response_parser<boost::beast::http::string_body> parser_;
  int status_ = 0;
};

}  // namespace lowbit

#include "lowbit/server/http_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>
#include <unordered_map>

#include "lowbit/base/check.h"
#include "lowbit/server/connection.h"

namespace lowbit::server {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto kTick = std::chrono::milliseconds(250);

tcp::endpoint endpoint_of(asio::io_context& io, const std::string& host, int port) {
  LOWBIT_CHECK(port >= 0 && port <= 65535, "port ", port, " is not in 0 to 65535");
  error_code error;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port),
                                      tcp::resolver::passive | tcp::resolver::numeric_service,
                                      error);
  LOWBIT_CHECK(!error && !found.empty(), "cannot listen on ", host, ": ", error.message());
  for (const auto& entry : found) {  // "localhost" may be both
    if (entry.endpoint().address().is_v4()) return entry.endpoint();
  }
  return found.begin()->endpoint();
}

}  // namespace

struct HttpServer::Impl {
  Impl(HttpOptions http_options, Handler http_handler)
      : options(std::move(http_options)),
        handler(std::move(http_handler)),
        acceptor(io),
        ticker(io),
        pause(io),
        host{options, handler, [this](Connection* c) { connections.erase(c); }} {
    const tcp::endpoint endpoint = endpoint_of(io, options.host, options.port);
    error_code error;
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(4096, error);
    LOWBIT_CHECK_KIND(!error, ErrorKind::kIo, "cannot listen on ", options.host, " port ",
                      options.port, ": ", error.message(), "; another --port may be free");
    port = acceptor.local_endpoint().port();
  }

  void accept() {
    acceptor.async_accept([this](const error_code& error, tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (error) {  // out of descriptors, most likely: those that end make room
        log("cannot accept a connection: " + error.message() +
            "; raise the limit of open files (ulimit -n)");
        pause.expires_after(kTick);
        pause.async_wait([this](const error_code& stopped) {
          if (!stopped) accept();
        });
        return;
      }
      admit(std::move(socket));
      accept();
    });
  }

  void admit(tcp::socket socket) {
    if (connections.size() >= options.max_connections) {
      error_code ignored;
      socket.non_blocking(true, ignored);
      static const std::string kFull =
          "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
          "Connection: close\r\n\r\n";
      socket.write_some(asio::buffer(kFull), ignored);
      return;
    }
    auto connection = std::make_shared<Connection>(std::move(socket), host);
    connections.emplace(connection.get(), connection);
    connection->start();
  }

  void tick() {
    ticker.expires_after(kTick);
    ticker.async_wait([this](const error_code& error) {
      if (error) return;
      const Clock::time_point now = Clock::now();
      for (auto it = connections.begin(); it != connections.end();) {
        const std::shared_ptr<Connection> connection = (it++)->second;  // it may be erased
        connection->check_deadline(now);
      }
      if (options.tick) options.tick();
      tick();
    });
  }

  void run() {
    for (;;) {
      try {
        io.run();
        return;
      } catch (const std::exception& error) {  // of one event: the others go on
        log(std::string("internal error: ") + error.what());
      }
    }
  }

  void log(const std::string& line) const {
    if (options.log) options.log(line);
  }

  HttpOptions options;
  Handler handler;
  asio::io_context io{1};
  tcp::acceptor acceptor;
  asio::steady_timer ticker, pause;
  ConnectionHost host;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections;
  int port = 0;
  std::thread thread;
};

HttpServer::HttpServer(HttpOptions options, Handler handler)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(handler))) {}

HttpServer::~HttpServer() { stop(); }

void HttpServer::start() {
  impl_->accept();
  impl_->tick();
  impl_->thread = std::thread([this] { impl_->run(); });
}

int HttpServer::port() const { return impl_->port; }

void HttpServer::post(std::function<void()> task) { asio::post(impl_->io, std::move(task)); }

void HttpServer::stop() {
  if (!impl_->thread.joinable()) return;
  post([this] {
    error_code ignored;
    impl_->acceptor.close(ignored);
    auto connections = std::exchange(impl_->connections, {});
    for (const auto& [key, connection] : connections) connection->close();
    impl_->io.stop();
  });
  impl_->thread.join();
}

size_t HttpServer::connections() const { return impl_->connections.size(); }
void HttpServer::stop_keeping_alive() { impl_->host.keep_alive = false; }

}  // namespace lowbit::server

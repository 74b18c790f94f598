// Connection: one client of the HttpServer. Everything happens on the I/O thread.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "lowbit/server/http_server.h"
#include "lowbit/server/request_parser.h"

namespace lowbit::server {

using boost::asio::ip::tcp;
using Clock = std::chrono::steady_clock;

class Connection;

// What connections share; the server owns it and outlives them.
struct ConnectionHost {
  const HttpOptions& options;
  const Handler& handler;
  std::function<void(Connection*)> closed;  // forget it
  bool keep_alive = true;
  std::string scratch = std::string(64 << 10, '\0');  // what has just been read
};

class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, ConnectionHost& host);

  void start();
  void check_deadline(Clock::time_point now);
  void close();

  // For the reply with this number; others come too late and are ignored.
  void send(uint64_t exchange, HttpResponse response);
  void begin(uint64_t exchange, HttpResponse response);
  void write(uint64_t exchange, std::string_view piece);
  void end(uint64_t exchange);
  void abort(uint64_t exchange);
  void on_gone(uint64_t exchange, std::function<void()> callback);
  void on_backlog(uint64_t exchange, std::function<void(bool much)> callback);

 private:
  enum class State { kReading, kAnswering, kLingering, kClosed };

  void wait_readable();
  void on_readable();
  void advance();
  void dispatch();
  void refuse(int status, const std::string& message);
  void gone();
  void append_head(const HttpResponse& response, bool chunked);
  void append_piece(std::string_view piece);
  void flush();
  void write_some();
  void on_written();
  void linger();
  void look_at_backlog();
  void set_deadline(double seconds);
  bool answers(uint64_t exchange) const {
    return state_ == State::kAnswering && exchange == exchange_ && !complete_;
  }

  tcp::socket socket_;
  ConnectionHost& host_;
  State state_ = State::kReading;
  std::string in_;  // read, not yet parsed
  std::unique_ptr<RequestParser> parser_;
  bool body_started_ = false;
  bool waiting_ = false;  // for the socket to become readable
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point body_start_;

  uint64_t exchange_ = 0;  // counts requests
  bool head_only_ = false;
  bool http_1_1_ = true;
  bool keep_alive_ = false;
  bool chunked_ = false;   // the answer is a stream of chunks
  bool complete_ = false;  // nothing more will be added to the answer
  std::function<void()> gone_;
  std::function<void(bool)> backlog_;
  bool much_ = false;  // what backlog_ was told last

  std::string out_;      // to be sent next
  std::string sending_;  // with the kernel now
  size_t sent_ = 0;      // of sending_
  bool writing_ = false;
};

}  // namespace lowbit::server

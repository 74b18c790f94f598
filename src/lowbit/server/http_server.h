// HttpServer: HTTP/1.1 on one I/O thread, with bounds on everything a client can make it hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "lowbit/server/http.h"

namespace lowbit::server {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8000;  // 0: any that is free
  HttpLimits limits;
  size_t max_connections = 10'000;  // above it a connection gets 503 and is closed
  size_t stream_bytes = 256 << 10;  // of one stream that wait for its reader, then it is cut off
  size_t backlog_bytes = 64 << 10;  // then its writer is asked to wait, until it is a quarter
  double header_seconds = 10;       // from the first byte to the end of the header
  double body_seconds = 30;         // for the body, and a second more for every 16 KiB of it
  double idle_seconds = 75;         // between the requests of a connection
  double slow_client_seconds = 30;  // without reading anything of what is to be sent
  HttpFields fields;                // added to every answer
  // The answer to what never reaches the handler; must not throw.
  std::function<HttpResponse(int status, const std::string& message)> refusal;
  std::function<void(const std::string& line)> log;  // may be empty
  std::function<void()> tick;  // called four times a second on the I/O thread; may be empty
};

class HttpServer {
 public:
  // Binds and listens; the kernel queues connections until start(). Throws kInvalidArgument for an
  // address that cannot be, kIo if it is taken or not ours.
  HttpServer(HttpOptions options, Handler handler);
  ~HttpServer();  // stops
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void start();
  int port() const;
  // Runs `task` on the I/O thread, soon. From any thread.
  void post(std::function<void()> task);
  // Cuts all connections and joins the I/O thread. Not from that thread.
  void stop();

  // On the I/O thread.
  size_t connections() const;
  // From now on, no connection outlives its answer.
  void stop_keeping_alive();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lowbit::server

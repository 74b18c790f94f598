// HTTP as the rest of the server sees it: a request, and a way to answer it. No sockets here.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lowbit::server {

using HttpFields = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // as sent, without query; of an absolute URI without scheme and host
  std::string query;   // behind the "?"
  HttpFields fields;   // names in lower case
  std::string body;
  bool keep_alive = false;
  bool http_1_1 = false;  // else 1.0, which knows no chunks

  // The value of the first field of this name (lower case); null if there is none.
  const std::string* field(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpFields fields = {};
  bool close = false;  // end the connection behind this answer
};

// A request that HTTP itself refuses.
class HttpError : public std::runtime_error {
 public:
  HttpError(int status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

// Bounds on one request while it is read.
struct HttpLimits {
  size_t target_bytes = 8 << 10;
  size_t header_bytes = 32 << 10;  // request line and all fields
  size_t field_count = 100;
  size_t body_bytes = 8 << 20;
};

// The answer to one request: either send(), or begin(), write() any number of times, end(). To be
// used on the I/O thread only. Calls after the client has gone do nothing.
class Reply {
 public:
  virtual ~Reply() = default;

  virtual void send(HttpResponse response) = 0;
  // Starts an answer of unknown length; `response.body` is its first piece.
  virtual void begin(HttpResponse response) = 0;
  // Queues a piece. If the client reads so slowly that over HttpOptions::stream_bytes are queued,
  // the connection is closed and on_gone called: memory stays bounded and nobody waits.
  virtual void write(std::string_view piece) = 0;
  virtual void end() = 0;
  // Cuts the connection: what was sent is not whole, and the client must see that.
  virtual void abort() = 0;

  // Called with true when much waits for the client to read it, and with false when little is left:
  // the writer does well to wait in between. Called from inside of write() too.
  virtual void on_backlog(std::function<void(bool much)> callback) = 0;
  // Called at most once, if the client goes away, stalls or is cut off before the answer is
  // complete. Never called from inside of send() and the like.
  virtual void on_gone(std::function<void()> callback) = 0;
};

using Handler = std::function<void(HttpRequest request, std::shared_ptr<Reply> reply)>;

const char* reason_phrase(int status);

}  // namespace lowbit::server

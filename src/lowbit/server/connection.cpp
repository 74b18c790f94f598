#include "lowbit/server/connection.h"

#include <array>
#include <boost/asio/post.hpp>
#include <cstdio>
#include <exception>

namespace lowbit::server {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr size_t kPipelineBytes = 16 << 10;  // of next requests that wait for the answer to this
constexpr double kLingerSeconds = 2;
constexpr double kBodyBytesPerSecond = 16 << 10;

// Ends its exchange if nobody has: a request is never left without an answer.
class ConnectionReply final : public Reply {
 public:
  ConnectionReply(std::weak_ptr<Connection> connection, uint64_t exchange)
      : connection_(std::move(connection)), exchange_(exchange) {}
  ~ConnectionReply() override { abort(); }
  ConnectionReply(const ConnectionReply&) = delete;
  ConnectionReply& operator=(const ConnectionReply&) = delete;

  void send(HttpResponse response) override {
    if (const auto c = connection_.lock()) c->send(exchange_, std::move(response));
  }
  void begin(HttpResponse response) override {
    if (const auto c = connection_.lock()) c->begin(exchange_, std::move(response));
  }
  void write(std::string_view piece) override {
    if (const auto c = connection_.lock()) c->write(exchange_, piece);
  }
  void end() override {
    if (const auto c = connection_.lock()) c->end(exchange_);
  }
  void abort() override {
    if (const auto c = connection_.lock()) c->abort(exchange_);
  }
  void on_gone(std::function<void()> callback) override {
    if (const auto c = connection_.lock()) c->on_gone(exchange_, std::move(callback));
  }
  void on_backlog(std::function<void(bool)> callback) override {
    if (const auto c = connection_.lock()) c->on_backlog(exchange_, std::move(callback));
  }

 private:
  std::weak_ptr<Connection> connection_;
  uint64_t exchange_;
};

}  // namespace

Connection::Connection(tcp::socket socket, ConnectionHost& host)
    : socket_(std::move(socket)),
      host_(host),
      parser_(std::make_unique<RequestParser>(host.options.limits)) {}

void Connection::start() {
  error_code ignored;
  socket_.non_blocking(true, ignored);
  socket_.set_option(tcp::no_delay(true), ignored);
  set_deadline(host_.options.header_seconds);
  wait_readable();
}

void Connection::set_deadline(double seconds) {
  deadline_ = Clock::now() +
              std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

void Connection::check_deadline(Clock::time_point now) {
  if (now < deadline_) return;
  const bool in_request = !in_.empty() || body_started_;
  if (state_ == State::kReading && in_request) {
    refuse(408, body_started_ ? "the body took too long" : "the header took too long");
  } else {
    gone();
  }
}

// Waits without a buffer, so that ten thousand idle connections hold none.
void Connection::wait_readable() {
  if (waiting_ || state_ == State::kClosed) return;
  if (state_ == State::kAnswering && in_.size() >= kPipelineBytes) return;
  waiting_ = true;
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](const error_code& error) {
    self->waiting_ = false;
    if (self->state_ == State::kClosed) return;
    if (error) return self->gone();
    self->on_readable();
  });
}

void Connection::on_readable() {
  error_code error;
  const size_t count = socket_.read_some(asio::buffer(host_.scratch), error);
  if (error == asio::error::would_block || error == asio::error::interrupted) {
    return wait_readable();
  }
  if (error) return gone();  // the end of the stream as well: who wants an answer stays
  if (state_ != State::kLingering) {
    if (state_ == State::kReading && in_.empty() && !body_started_) {
      set_deadline(host_.options.header_seconds);
    }
    in_.append(host_.scratch, 0, count);
  }
  if (state_ == State::kReading) advance();
  wait_readable();
}

// Parses what has come, up to the end of one request.
void Connection::advance() {
  try {
    in_.erase(0, parser_->push(in_));
  } catch (const HttpError& error) {
    return refuse(error.status(), error.what());
  }
  if (parser_->done()) return dispatch();
  if (!parser_->header_done()) return;
  if (!body_started_) {
    body_started_ = true;
    body_start_ = Clock::now();
    if (parser_->expects_continue() && parser_->body_received() == 0 && in_.empty()) {
      out_ += "HTTP/1.1 100 Continue\r\n\r\n";
      flush();
    }
  }
  const double seconds = host_.options.body_seconds +
                         static_cast<double>(parser_->body_received()) / kBodyBytesPerSecond;
  deadline_ = body_start_ +
              std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

void Connection::dispatch() {
  HttpRequest request = parser_->take();
  parser_ = std::make_unique<RequestParser>(host_.options.limits);
  body_started_ = false;
  state_ = State::kAnswering;
  deadline_ = Clock::time_point::max();
  ++exchange_;
  head_only_ = request.method == "HEAD";
  http_1_1_ = request.http_1_1;
  keep_alive_ = request.keep_alive;
  chunked_ = complete_ = false;
  const auto self = shared_from_this();
  auto reply = std::make_shared<ConnectionReply>(weak_from_this(), exchange_);
  try {
    host_.handler(std::move(request), reply);
  } catch (const std::exception& error) {
    if (host_.options.log) host_.options.log(std::string("internal error: ") + error.what());
    send(exchange_, host_.options.refusal(500, "internal error"));
  }
}

// An answer from here, to something that is not even a request; nothing behind it can be trusted.
void Connection::refuse(int status, const std::string& message) {
  state_ = State::kAnswering;
  deadline_ = Clock::time_point::max();
  ++exchange_;
  in_.clear();
  head_only_ = false;
  http_1_1_ = true;
  keep_alive_ = chunked_ = complete_ = false;
  send(exchange_, host_.options.refusal(status, message));
}

void Connection::append_head(const HttpResponse& response, bool chunked) {
  if (response.close || !host_.keep_alive) keep_alive_ = false;
  if (chunked && !http_1_1_) keep_alive_ = false;  // the end of the stream ends the answer
  out_ += http_1_1_ ? "HTTP/1.1 " : "HTTP/1.0 ";
  out_ += std::to_string(response.status) + " " + reason_phrase(response.status) + "\r\n";
  const auto field = [&](std::string_view name, std::string_view value) {
    out_.append(name).append(": ").append(value).append("\r\n");
  };
  for (const auto& [name, value] : host_.options.fields) field(name, value);
  for (const auto& [name, value] : response.fields) field(name, value);
  if (!response.content_type.empty()) field("Content-Type", response.content_type);
  if (!chunked) {
    if (response.status != 204) field("Content-Length", std::to_string(response.body.size()));
  } else if (http_1_1_) {
    field("Transfer-Encoding", "chunked");
  }
  if (!keep_alive_) {
    field("Connection", "close");
  } else if (!http_1_1_) {
    field("Connection", "keep-alive");
  }
  out_ += "\r\n";
}

void Connection::send(uint64_t exchange, HttpResponse response) {
  if (!answers(exchange)) return;
  append_head(response, false);
  if (!head_only_) out_ += response.body;
  complete_ = true;
  gone_ = nullptr;
  backlog_ = nullptr;
  flush();
}

void Connection::begin(uint64_t exchange, HttpResponse response) {
  if (!answers(exchange)) return;
  append_head(response, true);
  chunked_ = true;
  append_piece(response.body);
  flush();
}

void Connection::append_piece(std::string_view piece) {
  if (piece.empty() || head_only_) return;
  if (!http_1_1_) {
    out_ += piece;
    return;
  }
  std::array<char, 20> size;
  const int length = std::snprintf(size.data(), size.size(), "%zx\r\n", piece.size());
  out_.append(size.data(), static_cast<size_t>(length)).append(piece).append("\r\n");
}

void Connection::write(uint64_t exchange, std::string_view piece) {
  if (!answers(exchange) || !chunked_) return;
  append_piece(piece);
  if (out_.size() > host_.options.stream_bytes) return gone();
  flush();
  look_at_backlog();
}

void Connection::look_at_backlog() {
  if (!backlog_) return;
  const size_t waiting = out_.size() + (writing_ ? sending_.size() - sent_ : 0);
  const size_t limit = host_.options.backlog_bytes;
  const bool much = waiting > (much_ ? limit / 4 : limit);
  if (much == much_) return;
  much_ = much;
  backlog_(much);
}

void Connection::end(uint64_t exchange) {
  if (!answers(exchange) || !chunked_) return;
  if (http_1_1_ && !head_only_) out_ += "0\r\n\r\n";
  complete_ = true;
  gone_ = nullptr;
  backlog_ = nullptr;
  flush();
}

void Connection::abort(uint64_t exchange) {
  if (!answers(exchange)) return;
  gone_ = nullptr;
  backlog_ = nullptr;
  close();
}

void Connection::on_gone(uint64_t exchange, std::function<void()> callback) {
  if (answers(exchange)) gone_ = std::move(callback);
}

void Connection::on_backlog(uint64_t exchange, std::function<void(bool)> callback) {
  if (!answers(exchange)) return;
  backlog_ = std::move(callback);
  much_ = false;
}

void Connection::flush() {
  if (writing_ || state_ == State::kClosed) return;
  if (out_.empty()) return on_written();
  writing_ = true;
  sending_.clear();
  sending_.swap(out_);
  sent_ = 0;
  write_some();
}

void Connection::write_some() {
  if (state_ == State::kAnswering) set_deadline(host_.options.slow_client_seconds);
  socket_.async_write_some(asio::buffer(sending_.data() + sent_, sending_.size() - sent_),
                           [self = shared_from_this()](const error_code& error, size_t count) {
                             if (self->state_ == State::kClosed) return;
                             if (error) return self->gone();
                             self->sent_ += count;
                             self->writing_ = self->sent_ < self->sending_.size();
                             self->look_at_backlog();
                             if (self->writing_) return self->write_some();
                             self->flush();
                           });
}

// Everything queued is with the kernel.
void Connection::on_written() {
  if (state_ != State::kAnswering) return;
  deadline_ = Clock::time_point::max();
  if (!complete_) return;
  if (!keep_alive_) return linger();
  state_ = State::kReading;
  complete_ = false;
  set_deadline(in_.empty() ? host_.options.idle_seconds : host_.options.header_seconds);
  if (!in_.empty()) advance();
  wait_readable();
}

// Closing while the client still sends would make the kernel throw the answer away.
void Connection::linger() {
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  state_ = State::kLingering;
  in_.clear();
  set_deadline(kLingerSeconds);
  wait_readable();
}

void Connection::gone() {
  if (state_ == State::kClosed) return;
  // Posted, so that the callback never runs inside of a call of its owner.
  if (gone_) asio::post(socket_.get_executor(), std::exchange(gone_, nullptr));
  close();
}

void Connection::close() {
  if (state_ == State::kClosed) return;
  const auto self = shared_from_this();
  state_ = State::kClosed;
  error_code ignored;
  socket_.close(ignored);
  host_.closed(this);
}

}  // namespace lowbit::server

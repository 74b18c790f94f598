#include "lowbit/bench/server_load.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/base/stopwatch.h"
#include "lowbit/bench/event_stream.h"
#include "lowbit/bench/http_exchange.h"
#include "lowbit/bench/workload.h"

namespace lowbit {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr size_t kShownBytes = 300;  // of an answer that is an error

std::string http_request(const HttpUrl& url, const std::string& endpoint,
                         const ServerLoadOptions& options, const std::string* body) {
  std::string text = concat(body != nullptr ? "POST " : "GET ", url.path, endpoint,
                            " HTTP/1.1\r\nHost: ", url.host, ":", url.port,
                            "\r\nConnection: close\r\nUser-Agent: lowbit-bench\r\n");
  if (!options.api_key.empty()) text += "Authorization: Bearer " + options.api_key + "\r\n";
  if (body == nullptr) return text + "\r\n";
  text += concat("Content-Type: application/json\r\nContent-Length: ", body->size(), "\r\n\r\n");
  return text + *body;
}

tcp::resolver::results_type resolve(asio::io_context& io, const HttpUrl& url) {
  boost::system::error_code error;
  const auto found = tcp::resolver(io).resolve(url.host, url.port, error);
  LOWBIT_CHECK_KIND(!error, ErrorKind::kIo, "cannot find the server ", url.host, ":", url.port,
                    ": ", error.message());
  return found;
}

// What a stream says about the request it answers.
struct Reading {
  RequestTimes times;
  EventStream events;
  std::string error_body;    // of an answer other than 200, its beginning
  std::string fault;         // that the server reports inside of a stream
  int64_t pieces = 0;        // events that bring text
  int64_t said_tokens = -1;  // by the server's "usage"
  bool complete = false;     // [DONE] or a finish_reason has come
};

// Whether a choice brings a token; those of chats begin with one that brings a role only.
bool brings_text(const Json& choice) {
  const auto text_in = [](const Json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() &&
           !found->get_ref<const std::string&>().empty();
  };
  if (const auto delta = choice.find("delta"); delta != choice.end() && delta->is_object()) {
    return text_in(*delta, "content") || text_in(*delta, "reasoning_content") ||
           text_in(*delta, "reasoning") || delta->contains("tool_calls");
  }
  return text_in(choice, "text");
}

class Load {
 public:
  Load(const std::vector<ServerRequest>& requests, const ServerLoadOptions& options)
      : requests_(requests),
        options_(options),
        url_(parse_http_url(options.url)),
        endpoints_(resolve(io_, url_)),
        arrivals_(arrival_times(requests.size(), options.request_rate, options.seed)),
        arrival_timer_(io_),
        stop_timer_(io_),
        progress_("requests", static_cast<int64_t>(requests.size()), "done") {}

  ServerLoadResult run() {
    clock_ = Stopwatch();
    admit();
    watch_stop();
    io_.run();
    result_.load = summarize_load(answered_, std::move(gaps_));
    result_.refusal = summarize_latencies(std::move(refusals_));
    LOWBIT_CHECK_KIND(result_.load.requests > 0 || result_.refused > 0, ErrorKind::kIo,
                      options_.url, options_.endpoint, ": no request was answered; the first: ",
                      result_.first_fault.empty() ? "interrupted" : result_.first_fault);
    return std::move(result_);
  }

 private:
  bool full() const {
    return options_.max_concurrency > 0 && in_flight_ >= options_.max_concurrency;
  }

  // Sends whatever may be sent now, and sees to it that it is called when more may.
  void admit() {
    for (; next_ < requests_.size() && !full(); ++next_) {
      const double wait = arrivals_[next_] - clock_.seconds();
      if (wait > 0) {
        arrival_timer_.expires_after(std::chrono::duration_cast<std::chrono::nanoseconds>(
            std::chrono::duration<double>(wait)));
        arrival_timer_.async_wait([this](const boost::system::error_code& error) {
          if (!error) admit();
        });
        return;
      }
      send(next_);
    }
    arrival_timer_.cancel();
  }

  void send(size_t index) {
    ++in_flight_;
    const std::string body = dump_json(requests_[index].body);
    auto reading = std::make_shared<Reading>();
    reading->times.arrival = clock_.seconds();
    reading->times.input_tokens = requests_[index].input_tokens;
    HttpExchange::Callbacks callbacks;
    callbacks.body = [this, reading](std::string_view bytes) { read(*reading, bytes); };
    callbacks.end = [this, reading](int status, const std::string& fault) {
      end(*reading, status, fault);
    };
    std::make_shared<HttpExchange>(io_, http_request(url_, options_.endpoint, options_, &body),
                                   options_.timeout_seconds, std::move(callbacks))
        ->start(endpoints_);
  }

  void read(Reading& reading, std::string_view bytes) {
    if (reading.error_body.size() < kShownBytes && reading.pieces == 0) {
      reading.error_body += bytes.substr(0, kShownBytes - reading.error_body.size());
    }
    const double now = clock_.seconds();
    reading.events.push(bytes, [&](std::string_view data) { read_event(reading, data, now); });
  }

  void read_event(Reading& reading, std::string_view data, double now) {
    if (data == "[DONE]") {
      reading.complete = true;
      return;
    }
    const Json event = parse_json(data, "an event of the server");
    if (!event.is_object()) return;
    if (event.contains("error")) reading.fault = dump_json(event["error"]).substr(0, kShownBytes);
    if (const auto usage = event.find("usage"); usage != event.end() && usage->is_object()) {
      reading.said_tokens = json_int(*usage, "completion_tokens", -1, "usage");
      reading.times.input_tokens =
          json_int(*usage, "prompt_tokens", reading.times.input_tokens, "usage");
    }
    const auto choices = event.find("choices");
    if (choices == event.end() || !choices->is_array()) return;
    for (const Json& choice : *choices) {
      if (!choice.is_object()) continue;
      if (const auto reason = choice.find("finish_reason");
          reason != choice.end() && !reason->is_null()) {
        reading.complete = true;
      }
      if (!brings_text(choice)) continue;
      if (reading.pieces++ == 0) {
        reading.times.first = now;
      } else {
        gaps_.push_back(now - reading.times.last);
      }
      reading.times.last = now;
    }
  }

  void end(Reading& reading, int status, const std::string& fault) {
    const double now = clock_.seconds();
    if (status == 429 || status == 503) {
      ++result_.refused;
      refusals_.push_back(now - reading.times.arrival);
    } else if (status == 200 && reading.complete && reading.fault.empty()) {
      RequestTimes& times = reading.times;
      times.output_tokens = reading.said_tokens >= 0 ? reading.said_tokens : reading.pieces;
      if (reading.pieces == 0) times.first = times.last = now;  // an answer without text
      answered_.push_back(times);
    } else {
      ++result_.failed;
      if (result_.first_fault.empty()) {
        result_.first_fault = !reading.fault.empty() ? reading.fault
                              : !fault.empty()       ? fault
                              : status == 200        ? "the stream ended before the answer did"
                                              : concat("status ", status, ": ", reading.error_body);
      }
    }
    --in_flight_;
    progress_.update(static_cast<int64_t>(++done_));
    if (done_ == requests_.size()) {
      stop_timer_.cancel();
    } else {
      admit();
    }
  }

  void watch_stop() {
    stop_timer_.expires_after(std::chrono::milliseconds(100));
    stop_timer_.async_wait([this](const boost::system::error_code& error) {
      if (error || done_ == requests_.size()) return;
      if (options_.stop && options_.stop()) return io_.stop();
      watch_stop();
    });
  }

  const std::vector<ServerRequest>& requests_;
  const ServerLoadOptions& options_;
  asio::io_context io_{1};
  const HttpUrl url_;
  const tcp::resolver::results_type endpoints_;
  const std::vector<double> arrivals_;
  asio::steady_timer arrival_timer_, stop_timer_;
  Progress progress_;
  Stopwatch clock_;
  size_t next_ = 0;
  size_t done_ = 0;
  int64_t in_flight_ = 0;
  std::vector<RequestTimes> answered_;
  std::vector<double> gaps_, refusals_;
  ServerLoadResult result_;
};

}  // namespace

ServerLoadResult measure_server(const std::vector<ServerRequest>& requests,
                                const ServerLoadOptions& options) {
  LOWBIT_CHECK(!requests.empty(), "no requests to send");
  return Load(requests, options).run();
}

std::string first_model_name(const ServerLoadOptions& options) {
  const HttpUrl url = parse_http_url(options.url);
  asio::io_context io;
  std::string body, what;
  int got = 0;
  HttpExchange::Callbacks callbacks;
  callbacks.body = [&](std::string_view bytes) {
    LOWBIT_CHECK_KIND(body.size() + bytes.size() <= limits::kEventBytes, ErrorKind::kCorruptFile,
                      "the list of models is too long");
    body += bytes;
  };
  callbacks.end = [&](int status, const std::string& fault) {
    got = status;
    what = fault;
  };
  std::make_shared<HttpExchange>(io, http_request(url, "/v1/models", options, nullptr),
                                 options.timeout_seconds, std::move(callbacks))
      ->start(resolve(io, url));
  io.run();
  const std::string origin = options.url + "/v1/models";
  LOWBIT_CHECK_KIND(
      got == 200 && what.empty(), ErrorKind::kIo, origin, ": ",
      what.empty() ? concat("status ", got, " (name the model with --served-model-name)") : what);
  const Json json = parse_json(body, origin);
  const auto data = json.is_object() ? json.find("data") : json.end();
  LOWBIT_CHECK_KIND(json.is_object() && data != json.end() && data->is_array() && !data->empty() &&
                        (*data)[0].is_object(),
                    ErrorKind::kIo, origin, ": lists no model");
  return json_string((*data)[0], "id", "", origin);
}

}  // namespace lowbit

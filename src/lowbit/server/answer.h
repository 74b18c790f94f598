// Answer: makes the answer to one HTTP request out of what the engine says about it, as a whole or
// as a stream of server-sent events. On the I/O thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/engine/request.h"
#include "lowbit/server/api_error.h"
#include "lowbit/server/http.h"

namespace lowbit::server {

class Answer {
 public:
  // parts: engine requests that together make the answer.
  Answer(std::string id, bool streams, size_t parts);
  virtual ~Answer() = default;

  const std::string& id() const { return id_; }
  void attach(std::shared_ptr<Reply> reply) { reply_ = std::move(reply); }
  // News of part `part`. True when the answer is complete.
  bool on_output(size_t part, Output&& output);
  // The answer cannot be completed: an error response, or in a stream an error event and no end.
  void fail(const ApiError& error);
  // Something to read for proxies and clients that lose patience; only for streams.
  void keep_awake();
  bool over() const { return over_; }

 protected:
  virtual void add(size_t part, Output& output) = 0;
  // All parts have ended: send_json(), or the last events and end_stream().
  virtual void finish() = 0;

  bool streams() const { return streams_; }
  const Usage& usage() const { return usage_; }  // of all parts
  // "data: ...", with "event: name" before it unless empty.
  void send_event(const OrderedJson& data, const char* name = "");
  void send_done();  // data: [DONE]
  void end_stream();
  void send_json(const OrderedJson& body);

 private:
  void begin_stream();

  std::string id_;
  bool streams_;
  size_t parts_left_;
  std::vector<Usage> part_usage_;
  Usage usage_;
  std::shared_ptr<Reply> reply_;
  bool begun_ = false;
  bool over_ = false;
};

// {"prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details"}
OrderedJson usage_json(const Usage& usage);

// Asked for by stream_options.
struct StreamOptions {
  bool include_usage = false;
  bool continuous_usage = false;  // vLLM's continuous_usage_stats: in every chunk
};
// Throws ApiError (400) if there are options but no stream.
StreamOptions read_stream_options(const OrderedJson& body, bool streams);

// One request body made ready for the engine.
struct Prepared {
  std::vector<Request> requests;  // without on_output
  std::shared_ptr<Answer> answer;
};

}  // namespace lowbit::server

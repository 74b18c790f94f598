// A load generator: many requests at once to an OpenAI-compatible server, answers streamed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/bench/load_times.h"

namespace lowbit {

struct ServerRequest {
  Json body;                 // of the POST; "stream" and the like are part of it
  int64_t input_tokens = 0;  // if the server does not say
};

struct ServerLoadOptions {
  std::string url;  // http://host:port, perhaps with a path
  std::string endpoint = "/v1/completions";
  std::string api_key;           // "": none
  double request_rate = 0;       // arrivals per second, Poisson; 0: all at the start
  uint64_t seed = 0;             // of arrivals
  int64_t max_concurrency = 0;   // requests in flight; 0: any number
  double timeout_seconds = 600;  // without a byte
  std::function<bool()> stop;    // asked 10 times a second; may be empty
};

struct ServerLoadResult {
  LoadSummary load;         // of the requests that were answered in full
  int64_t failed = 0;       // broken off, or answered with an error
  int64_t refused = 0;      // answered with 429 or 503: not counted as failed
  Latencies refusal;        // from sending to the answer 429 or 503
  std::string first_fault;  // what went wrong with the first that failed
};

// Sends them all and waits for the answers. A request whose arrival comes while max_concurrency are
// in flight waits; its wait does not count. Throws kInvalidArgument for a URL that is none (https
// is a proxy's work), kIo if the server cannot be reached at all.
ServerLoadResult measure_server(const std::vector<ServerRequest>& requests,
                                const ServerLoadOptions& options);

// The id of the first model at /v1/models. Throws kIo if there is none.
std::string first_model_name(const ServerLoadOptions& options);

}  // namespace lowbit

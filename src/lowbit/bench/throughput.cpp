#include "lowbit/bench/throughput.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/base/stopwatch.h"

namespace lowbit {

namespace {

double percentile(const std::vector<double>& sorted, double fraction) {
  const double at = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - std::floor(at)) * (sorted[above] - sorted[below]);
}

// What a client sees of one request.
struct Client {
  double arrival = 0;
  double first = 0;
  double last = 0;
  int64_t tokens = 0;
};

class Run {
 public:
  Run(Engine& engine, const ThroughputOptions& options)
      : engine_(engine),
        options_(options),
        clients_(static_cast<size_t>(options.num_prompts)),
        progress_("requests", options.num_prompts, "done") {
    double arrival = 0;
    for (size_t i = 0; i < clients_.size(); ++i) {
      clients_[i].arrival = arrival;
      if (options.request_rate > 0) {
        const double uniform = uniform_at(options.seed ^ 0x5eed, static_cast<int64_t>(i));
        arrival -= std::log(1 - uniform) / options.request_rate;
      }
    }
  }

  ThroughputResult measure() {
    size_t next = 0;
    while (done_ < options_.num_prompts) {
      for (; next < clients_.size() && clients_[next].arrival <= clock_.seconds(); ++next) {
        submit(next);
      }
      if (engine_.step()) continue;
      LOWBIT_CHECK_KIND(engine_.stats().healthy, ErrorKind::kDevice, engine_.stats().fault);
      const double pause = clients_[std::min(next, clients_.size() - 1)].arrival - clock_.seconds();
      std::this_thread::sleep_for(std::chrono::duration<double>(std::max(pause, 0.0)));
    }
    return summarize();
  }

 private:
  void submit(size_t index) {
    Request request;
    for (int64_t i = 0; i < options_.input_len; ++i) {
      const auto position = static_cast<int64_t>(index) * options_.input_len + i;
      const auto vocab = static_cast<double>(engine_.model().config().vocab_size);
      request.prompt.push_back(static_cast<int32_t>(uniform_at(options_.seed, position) * vocab));
    }
    request.sampling = options_.sampling;
    request.sampling.seed = options_.seed + index;
    request.max_tokens = options_.output_len;
    request.ignore_eos = true;
    request.on_output = [this, index](Output&& output) { receive(clients_[index], output); };
    const Submission submission = engine_.submit(std::move(request));
    LOWBIT_CHECK_KIND(submission.admission == Admission::kAccepted, ErrorKind::kDevice,
                      "the engine refused a request: ", engine_.stats().fault);
  }

  void receive(Client& client, const Output& output) {
    const double now = clock_.seconds();
    const auto count = static_cast<int64_t>(output.ids.size());
    if (client.tokens == 0) {
      client.first = now;
    } else if (count > 0) {
      const double gap = (now - client.last) / static_cast<double>(count);
      gaps_.insert(gaps_.end(), static_cast<size_t>(count), gap);
    }
    client.tokens += count;
    client.last = now;
    if (output.last) progress_.update(++done_);
  }

  ThroughputResult summarize() const {
    ThroughputResult result;
    std::vector<double> ttft, tpot;
    int64_t tokens = 0;
    for (const Client& client : clients_) {
      tokens += client.tokens;
      result.seconds = std::max(result.seconds, client.last - clients_[0].arrival);
      ttft.push_back(client.first - client.arrival);
      if (client.tokens > 1) {
        tpot.push_back((client.last - client.first) / static_cast<double>(client.tokens - 1));
      }
    }
    const auto requests = static_cast<double>(clients_.size());
    const auto input = requests * static_cast<double>(options_.input_len);
    result.requests_per_second = requests / result.seconds;
    result.output_tok_s = static_cast<double>(tokens) / result.seconds;
    result.total_tok_s = (static_cast<double>(tokens) + input) / result.seconds;
    result.ttft = summarize_latencies(std::move(ttft));
    result.tpot = summarize_latencies(std::move(tpot));
    result.itl = summarize_latencies(gaps_);
    result.stats = engine_.stats();
    return result;
  }

  Engine& engine_;
  const ThroughputOptions& options_;
  std::vector<Client> clients_;
  std::vector<double> gaps_;
  Progress progress_;
  int64_t done_ = 0;
  Stopwatch clock_;
};

}  // namespace

Latencies summarize_latencies(std::vector<double> seconds) {
  if (seconds.empty()) return {};
  std::sort(seconds.begin(), seconds.end());
  double sum = 0;
  for (const double value : seconds) sum += value;
  const auto ms = [&](double fraction) { return 1e3 * percentile(seconds, fraction); };
  return {1e3 * sum / static_cast<double>(seconds.size()), ms(0.5), ms(0.9), ms(0.99)};
}

ThroughputResult measure_throughput(Engine& engine, const ThroughputOptions& options) {
  LOWBIT_CHECK(options.num_prompts > 0 && options.input_len > 0 && options.output_len > 0,
               "num_prompts, input_len and output_len must be positive, not ", options.num_prompts,
               ", ", options.input_len, " and ", options.output_len);
  LOWBIT_CHECK(options.request_rate >= 0 && std::isfinite(options.request_rate),
               "request_rate must be 0 (all at once) or more, not ", options.request_rate);
  LOWBIT_CHECK(options.input_len + options.output_len <= engine.max_request_tokens(),
               "input_len + output_len is ", options.input_len + options.output_len,
               ", more than the ", engine.max_request_tokens(), " tokens a request may have here");
  return Run(engine, options).measure();
}

}  // namespace lowbit

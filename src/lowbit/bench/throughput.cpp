#include "lowbit/bench/throughput.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/base/stopwatch.h"

namespace lowbit {

namespace {

class Run {
 public:
  Run(Engine& engine, const std::vector<WorkloadRequest>& requests,
      const ThroughputOptions& options)
      : engine_(engine),
        requests_(requests),
        options_(options),
        arrivals_(arrival_times(requests.size(), options.request_rate, options.seed)),
        times_(requests.size()),
        progress_("requests", static_cast<int64_t>(requests.size()), "done") {}

  ThroughputResult measure() {
    size_t next = 0;
    while (done_ < requests_.size()) {
      for (; next < requests_.size() && arrivals_[next] <= clock_.seconds(); ++next) submit(next);
      if (engine_.step()) continue;
      LOWBIT_CHECK_KIND(engine_.stats().healthy, ErrorKind::kDevice, engine_.stats().fault);
      const double pause = arrivals_[std::min(next, arrivals_.size() - 1)] - clock_.seconds();
      std::this_thread::sleep_for(std::chrono::duration<double>(std::max(pause, 0.0)));
    }
    return {summarize_load(times_, std::move(gaps_)), engine_.stats()};
  }

 private:
  void submit(size_t index) {
    Request request;
    request.prompt = requests_[index].prompt;
    request.sampling = options_.sampling;
    request.sampling.seed = options_.seed + index;
    request.max_tokens = requests_[index].output_len;
    request.ignore_eos = true;
    request.on_output = [this, index](Output&& output) { receive(times_[index], output); };
    times_[index].arrival = arrivals_[index];
    times_[index].input_tokens = static_cast<int64_t>(request.prompt.size());
    const Submission submission = engine_.submit(std::move(request));
    LOWBIT_CHECK_KIND(submission.admission == Admission::kAccepted, ErrorKind::kDevice,
                      "the engine refused a request: ", engine_.stats().fault);
  }

  void receive(RequestTimes& times, const Output& output) {
    const double now = clock_.seconds();
    const auto count = static_cast<int64_t>(output.ids.size());
    if (times.output_tokens == 0) {
      times.first = now;
    } else if (count > 0) {
      const double gap = (now - times.last) / static_cast<double>(count);
      gaps_.insert(gaps_.end(), static_cast<size_t>(count), gap);
    }
    times.output_tokens += count;
    times.last = now;
    if (output.last) progress_.update(static_cast<int64_t>(++done_));
  }

  Engine& engine_;
  const std::vector<WorkloadRequest>& requests_;
  const ThroughputOptions& options_;
  const std::vector<double> arrivals_;
  std::vector<RequestTimes> times_;
  std::vector<double> gaps_;
  Progress progress_;
  size_t done_ = 0;
  Stopwatch clock_;
};

}  // namespace

ThroughputResult measure_throughput(Engine& engine, const std::vector<WorkloadRequest>& requests,
                                    const ThroughputOptions& options) {
  for (const WorkloadRequest& request : requests) {
    const auto length = static_cast<int64_t>(request.prompt.size()) + request.output_len;
    LOWBIT_CHECK(length <= engine.max_request_tokens(), "a request has ", length,
                 " tokens, more than the ", engine.max_request_tokens(),
                 " that one may have here (-c)");
  }
  return Run(engine, requests, options).measure();
}

}  // namespace lowbit

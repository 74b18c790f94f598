#include "lowbit/bench/load_times.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lowbit {

namespace {

double percentile(const std::vector<double>& sorted, double fraction) {
  const double at = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - std::floor(at)) * (sorted[above] - sorted[below]);
}

}  // namespace

Latencies summarize_latencies(std::vector<double> seconds) {
  if (seconds.empty()) return {};
  std::sort(seconds.begin(), seconds.end());
  double sum = 0;
  for (const double value : seconds) sum += value;
  const auto ms = [&](double fraction) { return 1e3 * percentile(seconds, fraction); };
  return {1e3 * sum / static_cast<double>(seconds.size()), ms(0.5), ms(0.9), ms(0.99)};
}

LoadSummary summarize_load(const std::vector<RequestTimes>& requests, std::vector<double> gaps) {
  LoadSummary summary;
  if (requests.empty()) return summary;
  std::vector<double> ttft, tpot;
  double begin = requests[0].arrival, end = begin;
  for (const RequestTimes& request : requests) {
    begin = std::min(begin, request.arrival);
    end = std::max(end, request.last);
    summary.input_tokens += request.input_tokens;
    summary.output_tokens += request.output_tokens;
    ttft.push_back(request.first - request.arrival);
    if (request.output_tokens > 1) {
      tpot.push_back((request.last - request.first) /
                     static_cast<double>(request.output_tokens - 1));
    }
  }
  summary.requests = static_cast<int64_t>(requests.size());
  summary.seconds = end - begin;
  const double seconds = std::max(summary.seconds, 1e-9);
  summary.requests_per_second = static_cast<double>(summary.requests) / seconds;
  summary.output_tok_s = static_cast<double>(summary.output_tokens) / seconds;
  summary.total_tok_s = static_cast<double>(summary.input_tokens + summary.output_tokens) / seconds;
  summary.ttft = summarize_latencies(std::move(ttft));
  summary.tpot = summarize_latencies(std::move(tpot));
  summary.itl = summarize_latencies(std::move(gaps));
  return summary;
}

}  // namespace lowbit

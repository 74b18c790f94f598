#include "lowbit/server/metrics.h"

#include <cstdio>

#include "lowbit/runtime/kv_cache.h"

namespace lowbit::server {

namespace {

// A label's value: quotes, backslashes and line ends are escaped.
std::string escaped(const std::string& value) {
  std::string result;
  for (const char c : value) {
    if (c == '\\' || c == '"') result += '\\';
    if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result;
}

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

class Writer {
 public:
  explicit Writer(const std::string& model) : label_("model_name=\"" + escaped(model) + "\"") {}

  void family(const char* name, const char* type, const char* help) {
    text_ += std::string("# HELP ") + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
  }
  void value(const std::string& name, double value, const std::string& labels = "") {
    text_ +=
        name + "{" + label_ + (labels.empty() ? "" : "," + labels) + "} " + shown(value) + "\n";
  }
  void gauge(const char* name, const char* help, double now) {
    family(name, "gauge", help);
    value(name, now);
  }
  // `name` ends in _total.
  void counter(const char* name, const char* help, double total) {
    family(name, "counter", help);
    value(name, total);
  }
  void histogram(const std::string& name, const char* help, const Histogram& histogram) {
    family(name.c_str(), "histogram", help);
    uint64_t below = 0;
    for (size_t i = 0; i < histogram.bounds.size(); ++i) {
      below += histogram.counts[i];
      value(name + "_bucket", static_cast<double>(below),
            "le=\"" + shown(histogram.bounds[i]) + "\"");
    }
    value(name + "_bucket", static_cast<double>(histogram.count), "le=\"+Inf\"");
    value(name + "_sum", histogram.sum);
    value(name + "_count", static_cast<double>(histogram.count));
  }
  std::string text() { return std::move(text_); }

 private:
  std::string label_;
  std::string text_;
};

void write_gauges(Writer& out, const EngineStats& stats) {
  out.gauge("vllm:num_requests_running", "Sequences in the running batch.",
            static_cast<double>(stats.running));
  out.gauge("vllm:num_requests_waiting", "Sequences waiting to run.",
            static_cast<double>(stats.waiting));
  out.gauge("vllm:kv_cache_usage_perc", "Part of the KV cache that sequences hold (1 is all).",
            stats.kv_usage());
  out.gauge("lowbit:kv_blocks", "Blocks of the KV cache.", static_cast<double>(stats.kv_blocks));
  out.gauge("lowbit:kv_cache_bytes", "Memory of the KV cache.",
            static_cast<double>(stats.kv_bytes));
  out.family("vllm:cache_config_info", "gauge", "How the KV cache is made; 1.");
  out.value("vllm:cache_config_info", 1,
            "block_size=\"" + std::to_string(kBlockTokens) + "\",cache_dtype=\"" +
                kv_name_of(stats.kv_dtype) + "\",num_blocks=\"" + std::to_string(stats.kv_blocks) +
                "\"");
  out.gauge("lowbit:kv_blocks_held", "Blocks that sequences hold.",
            static_cast<double>(stats.kv_blocks_held));
  out.gauge("lowbit:kv_blocks_cached", "Blocks that only the prefix cache keeps.",
            static_cast<double>(stats.kv_blocks_cached));
  out.gauge("lowbit:engine_healthy", "1 unless a step has failed.", stats.healthy ? 1 : 0);
}

void write_counters(Writer& out, const EngineStats& stats) {
  const auto count = [](uint64_t value) { return static_cast<double>(value); };
  out.counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
              count(stats.prefix_cache_queries));
  out.counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
              count(stats.prefix_cache_hits));
  out.counter("vllm:num_preemptions_total", "Sequences that had to make room.",
              count(stats.preemptions));
  out.counter("vllm:prompt_tokens_total", "Prompt tokens read.", count(stats.prompt_tokens));
  out.counter("vllm:generation_tokens_total", "Tokens generated.", count(stats.generation_tokens));
  out.counter("vllm:spec_decode_num_draft_tokens_total", "Tokens guessed.",
              count(stats.draft_tokens));
  out.counter("vllm:spec_decode_num_accepted_tokens_total", "Guessed tokens that were right.",
              count(stats.accepted_tokens));
  out.counter("lowbit:steps_total", "Forward passes.", count(stats.steps));
  out.counter("lowbit:model_seconds_total", "Time in forward passes.", stats.model_seconds);
  out.counter("lowbit:sample_seconds_total", "Time from logits to tokens.", stats.sample_seconds);
  out.counter("lowbit:other_seconds_total", "Time for scheduling and text.", stats.other_seconds);
  out.family("vllm:request_success_total", "counter", "Requests that ended, by reason.");
  static const char* const kReasons[] = {"stop", "length", "abort", "error"};
  for (size_t i = 0; i < stats.finished.size(); ++i) {
    out.value("vllm:request_success_total", count(stats.finished[i]),
              std::string("finished_reason=\"") + kReasons[i] + "\"");
  }
}

void write_histograms(Writer& out, const EngineStats& stats) {
  out.histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.",
                stats.time_to_first_token_seconds);
  out.histogram("vllm:inter_token_latency_seconds", "Between two tokens of a sequence.",
                stats.inter_token_latency_seconds);
  out.histogram("vllm:request_time_per_output_token_seconds", "Mean time per token of a request.",
                stats.request_time_per_output_token_seconds);
  out.histogram("vllm:e2e_request_latency_seconds", "From arrival to the last token.",
                stats.e2e_request_latency_seconds);
  out.histogram("vllm:request_queue_time_seconds", "From arrival to the first step.",
                stats.request_queue_time_seconds);
  out.histogram("vllm:request_prefill_time_seconds", "From the first step to the first token.",
                stats.request_prefill_time_seconds);
  out.histogram("vllm:request_decode_time_seconds", "From the first token to the last.",
                stats.request_decode_time_seconds);
  out.histogram("vllm:request_prompt_tokens", "Tokens of prompts.", stats.request_prompt_tokens);
  out.histogram("vllm:request_generation_tokens", "Tokens of answers.",
                stats.request_generation_tokens);
  out.histogram("vllm:iteration_tokens_total", "Tokens in one step.", stats.iteration_tokens);
}

}  // namespace

std::string metrics_text(const EngineStats* stats, const std::string& model,
                         const Router::Counts& counts, const ServerGauges& gauges) {
  Writer out(model);
  if (stats != nullptr) {
    write_gauges(out, *stats);
    write_counters(out, *stats);
    write_histograms(out, *stats);
  }
  out.gauge("lowbit:http_connections", "Open connections.",
            static_cast<double>(gauges.connections));
  out.gauge("lowbit:open_requests", "Requests that wait for their answer.",
            static_cast<double>(gauges.open_requests));
  out.gauge("lowbit:ready", "1 if new requests are taken.", gauges.ready ? 1 : 0);
  out.counter("lowbit:requests_gone_total", "Clients that did not wait for their answer.",
              static_cast<double>(counts.gone));
  out.family("http_requests_total", "counter", "Answers by path and status.");
  for (const auto& [key, value] : counts.answers) {
    out.value(
        "http_requests_total", static_cast<double>(value),
        "handler=\"" + escaped(key.first) + "\",status=\"" + std::to_string(key.second) + "\"");
  }
  return out.text();
}

}  // namespace lowbit::server

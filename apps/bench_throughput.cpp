// lowbit bench throughput: many requests at once.
#include <cmath>
#include <cstdio>
#include <memory>

#include "bench_machine.h"
#include "drafting.h"
#include "lowbit/base/json.h"
#include "lowbit/bench/latency.h"
#include "lowbit/bench/throughput.h"
#include "lowbit/report/table.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct ThroughputCommand {
  std::string model;
  RunOptions run;
  EngineOptions engine;
  ThroughputOptions options;
  DraftOptions draft;
  int64_t seed = 0;
  bool json = false;
};

OrderedJson to_json(const Latencies& latencies) {
  return {{"mean", latencies.mean},
          {"p50", latencies.p50},
          {"p90", latencies.p90},
          {"p99", latencies.p99}};
}

OrderedJson to_json(const ThroughputResult& result, const ThroughputCommand& command,
                    Session& session) {
  OrderedJson out;
  out["model"] = command.model;
  out["backend"] = session.backend().description();
  out["kernels"] = session.model().kernels();
  out["num_prompts"] = command.options.num_prompts;
  out["input_len"] = command.options.input_len;
  out["output_len"] = command.options.output_len;
  out["request_rate"] = command.options.request_rate;
  out["max_num_seqs"] = command.engine.max_num_seqs;
  out["seconds"] = result.seconds;
  out["requests_per_second"] = result.requests_per_second;
  out["output_tok_s"] = result.output_tok_s;
  out["total_tok_s"] = result.total_tok_s;
  out["ttft_ms"] = to_json(result.ttft);
  out["tpot_ms"] = to_json(result.tpot);
  out["itl_ms"] = to_json(result.itl);
  out["steps"] = result.stats.steps;
  out["preemptions"] = result.stats.preemptions;
  out["draft_tokens"] = result.stats.draft_tokens;
  out["accepted_tokens"] = result.stats.accepted_tokens;
  out["model_seconds"] = result.stats.model_seconds;
  out["sample_seconds"] = result.stats.sample_seconds;
  out["other_seconds"] = result.stats.other_seconds;
  out["peak_memory_mib"] = peak_memory_mib();
  return out;
}

void print(const ThroughputResult& result, const ThroughputCommand& command, Session& session) {
  std::printf("%s, %s\n", command.model.c_str(), session.backend().description().c_str());
  std::printf("%lld requests of %lld + %lld tokens in %.2f s, at most %lld at once\n",
              static_cast<long long>(command.options.num_prompts),
              static_cast<long long>(command.options.input_len),
              static_cast<long long>(command.options.output_len), result.seconds,
              static_cast<long long>(command.engine.max_num_seqs));
  std::printf("%.2f requests/s, %.1f output tok/s, %.1f total tok/s\n\n",
              result.requests_per_second, result.output_tok_s, result.total_tok_s);
  Table table({"ms", ">mean", ">p50", ">p90", ">p99"});
  const auto add = [&](const char* name, const Latencies& row) {
    table.add({name, fixed(row.mean, 1), fixed(row.p50, 1), fixed(row.p90, 1), fixed(row.p99, 1)});
  };
  add("time to first token", result.ttft);
  add("time per output token", result.tpot);
  add("inter-token latency", result.itl);
  std::printf("%s\n", table.text().c_str());
  const EngineStats& stats = result.stats;
  std::printf(
      "%llu steps: model %.2f s, sampling %.2f s, the rest %.2f s; %llu preemptions; peak %.0f "
      "MiB\n",
      static_cast<unsigned long long>(stats.steps), stats.model_seconds, stats.sample_seconds,
      stats.other_seconds, static_cast<unsigned long long>(stats.preemptions), peak_memory_mib());
  print_acceptance(stats.draft_tokens, stats.accepted_tokens, stats.generation_tokens, stdout);
}

void execute(ThroughputCommand& command) {
  const auto length = command.options.input_len + command.options.output_len;
  if (command.run.context == 0) command.run.context = length;
  command.options.seed = static_cast<uint64_t>(command.seed);
  command.engine.kv_dtype = command.run.kv_dtype();
  command.engine.max_waiting = command.options.num_prompts;
  command.engine.max_waiting_tokens = command.options.num_prompts * command.options.input_len;
  Session session(command.model, command.run);
  Drafting drafting(command.draft, command.run, session, command.engine.max_num_seqs);
  command.engine.drafter = drafting.make();
  Engine engine(session.model(), session.tokenizer(), std::move(command.engine));
  const ThroughputResult result = measure_throughput(engine, command.options);
  if (command.json) {
    std::printf("%s\n", dump_json(to_json(result, command, session), 2).c_str());
  } else {
    print(result, command, session);
  }
}

}  // namespace

void add_bench_throughput(CLI::App& bench) {
  auto command = std::make_shared<ThroughputCommand>();
  ThroughputOptions& options = command->options;
  // vLLM's: everything is drawn from, so that sampling is not made cheap.
  options.sampling.temperature = 1;
  options.sampling.top_k = 0;
  options.sampling.top_p = 1;
  options.sampling.min_p = 0;
  CLI::App& sub = *bench.add_subcommand("throughput", "Speed of many requests at once (as vLLM's)");
  sub.footer("Example: lowbit bench throughput -m model.gguf --num-prompts 64 --max-num-seqs 64");
  add_model_option(sub, command->model);
  const CLI::Range counts(int64_t{1}, int64_t{1} << 24);
  sub.add_option("--num-prompts", options.num_prompts, "Requests")
      ->check(counts)
      ->capture_default_str();
  sub.add_option("--input-len", options.input_len, "Tokens of each prompt")
      ->check(counts)
      ->capture_default_str();
  sub.add_option("--output-len", options.output_len, "Tokens of each answer")
      ->check(counts)
      ->capture_default_str();
  sub.add_option("--request-rate", options.request_rate,
                 "Requests per second, at random times (0: all at the start)")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  sub.add_option("--max-num-seqs", command->engine.max_num_seqs, "Requests running at once")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  sub.add_option("--max-num-batched-tokens", command->engine.max_num_batched_tokens,
                 "Tokens in one step (0: as -b)")
      ->check(CLI::Range(int64_t{0}, int64_t{65536}))
      ->capture_default_str();
  sub.add_option("--temp,--temperature", options.sampling.temperature, "Temperature (0: greedy)")
      ->check(CLI::Range(0.0f, 100.0f))
      ->capture_default_str();
  sub.add_option("--seed", command->seed, "Seed of prompts, arrivals and draws")
      ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()))
      ->capture_default_str();
  command->run.add_to(sub);
  command->draft.add_to(sub);
  sub.add_flag("--json", command->json, "Print one JSON object");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app

// lowbit bench throughput: many requests at once, to an engine of its own or to a server.
#include <cstdio>
#include <memory>

#include "bench_machine.h"
#include "commands.h"
#include "drafting.h"
#include "lowbit/base/check.h"
#include "lowbit/base/json.h"
#include "lowbit/bench/latency.h"
#include "lowbit/bench/server_load.h"
#include "lowbit/bench/throughput.h"
#include "lowbit/report/table.h"
#include "measured_model.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct ThroughputCommand {
  MeasuredModel measured;
  RunOptions run;
  EngineOptions engine;
  ThroughputOptions options;
  DraftOptions draft;

  int64_t num_prompts = 1000, input_len = 100, output_len = 0;
  std::string dataset;
  int64_t seed = 0;

  ServerLoadOptions server;
  std::string served_name, extra_body;
  bool prompt_ids = false;
  bool json = false;
};

constexpr int64_t kDefaultOutput = 250;

OrderedJson to_json(const Latencies& latencies) {
  return {{"mean", latencies.mean},
          {"p50", latencies.p50},
          {"p90", latencies.p90},
          {"p99", latencies.p99}};
}

void add_load(OrderedJson& out, const LoadSummary& load) {
  out["requests"] = load.requests;
  out["input_tokens"] = load.input_tokens;
  out["output_tokens"] = load.output_tokens;
  out["seconds"] = load.seconds;
  out["requests_per_second"] = load.requests_per_second;
  out["output_tok_s"] = load.output_tok_s;
  out["total_tok_s"] = load.total_tok_s;
  out["ttft_ms"] = to_json(load.ttft);
  out["tpot_ms"] = to_json(load.tpot);
  out["itl_ms"] = to_json(load.itl);
}

void print_load(const LoadSummary& load) {
  std::printf("%lld requests, %lld + %lld tokens, in %.2f s\n",
              static_cast<long long>(load.requests), static_cast<long long>(load.input_tokens),
              static_cast<long long>(load.output_tokens), load.seconds);
  std::printf("%.2f requests/s, %.1f output tok/s, %.1f total tok/s\n\n", load.requests_per_second,
              load.output_tok_s, load.total_tok_s);
  Table table({"ms", ">mean", ">p50", ">p90", ">p99"});
  const auto add = [&](const char* name, const Latencies& row) {
    table.add({name, fixed(row.mean, 1), fixed(row.p50, 1), fixed(row.p90, 1), fixed(row.p99, 1)});
  };
  add("time to first token", load.ttft);
  add("time per output token", load.tpot);
  add("inter-token latency", load.itl);
  std::printf("%s\n", table.text().c_str());
}

OrderedJson to_json(const ThroughputResult& result, const ThroughputCommand& command,
                    Session& session, int64_t max_num_seqs) {
  OrderedJson out;
  out["model"] = command.measured.model;
  out["backend"] = session.backend().description();
  out["kernels"] = session.model().kernels();
  out["request_rate"] = command.options.request_rate;
  out["max_num_seqs"] = max_num_seqs;
  add_load(out, result.load);
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

void print(const ThroughputResult& result, const ThroughputCommand& command, Session& session,
           int64_t max_num_seqs) {
  std::printf("%s, %s, at most %lld at once\n", command.measured.model.c_str(),
              session.backend().description().c_str(), static_cast<long long>(max_num_seqs));
  print_load(result.load);
  const EngineStats& stats = result.stats;
  std::printf(
      "%llu steps: model %.2f s, sampling %.2f s, the rest %.2f s; %llu preemptions; peak %.0f "
      "MiB\n",
      static_cast<unsigned long long>(stats.steps), stats.model_seconds, stats.sample_seconds,
      stats.other_seconds, static_cast<unsigned long long>(stats.preemptions), peak_memory_mib());
  print_acceptance(stats.draft_tokens, stats.accepted_tokens, stats.generation_tokens, stdout);
}

int64_t random_output_len(const ThroughputCommand& command) {
  return command.output_len > 0 ? command.output_len : kDefaultOutput;
}

std::vector<WorkloadRequest> workload(const ThroughputCommand& command, const Tokenizer& tokenizer,
                                      int64_t vocab_size) {
  const auto seed = static_cast<uint64_t>(command.seed);
  if (command.dataset.empty()) {
    return random_workload(command.num_prompts, command.input_len, random_output_len(command),
                           vocab_size, seed);
  }
  ConversationOptions options;
  options.num_prompts = command.num_prompts;
  options.output_len = command.output_len;
  options.seed = seed;
  if (command.run.context > 0) options.max_tokens = command.run.context;
  return read_conversations(command.dataset, tokenizer, options);
}

void run_engine(ThroughputCommand& command) {
  if (command.run.context == 0) {
    command.run.context = command.dataset.empty() ? command.input_len + random_output_len(command)
                                                  : ConversationOptions().max_tokens;
  }
  command.engine.kv_dtype = command.run.kv_dtype();
  Session session(command.measured.open(), command.run);
  const std::vector<WorkloadRequest> requests =
      workload(command, session.tokenizer(), session.model().config().vocab_size);
  command.engine.max_waiting = static_cast<int64_t>(requests.size());
  command.engine.max_waiting_tokens = 1;
  for (const WorkloadRequest& request : requests) {
    command.engine.max_waiting_tokens += static_cast<int64_t>(request.prompt.size());
  }
  const int64_t max_num_seqs = command.engine.max_num_seqs;
  Drafting drafting(command.draft, command.run, session, max_num_seqs);
  command.engine.drafter = drafting.make();
  Engine engine(session.model(), session.tokenizer(), std::move(command.engine));
  const ThroughputResult result = measure_throughput(engine, requests, command.options);
  if (command.json) {
    const OrderedJson out = to_json(result, command, session, max_num_seqs);
    std::printf("%s\n", dump_json(out, 2).c_str());
  } else {
    print(result, command, session, max_num_seqs);
  }
}

Json request_body(const ThroughputCommand& command, const WorkloadRequest& request, size_t index,
                  const Tokenizer& tokenizer) {
  Json body = {{"model", command.served_name},
               {"max_tokens", request.output_len},
               {"temperature", command.options.sampling.temperature},
               {"seed", command.seed + static_cast<int64_t>(index)},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}},
               {"ignore_eos", true}};
  if (command.server.endpoint.ends_with("/chat/completions")) {
    const std::string text = tokenizer.decode(request.prompt, true);
    body["messages"] = Json::array({{{"role", "user"}, {"content", text}}});
  } else if (command.prompt_ids) {
    body["prompt"] = request.prompt;
  } else {
    body["prompt"] = tokenizer.decode(request.prompt, false);
  }
  return body;
}

std::vector<ServerRequest> server_requests(ThroughputCommand& command) {
  const auto checkpoint = command.measured.open();
  const TokenizerSpec spec = checkpoint->tokenizer();
  const Tokenizer tokenizer(spec);
  const std::vector<WorkloadRequest> requests =
      workload(command, tokenizer, static_cast<int64_t>(spec.vocab.size()));
  Json extra = Json::object();
  if (!command.extra_body.empty()) extra = parse_json(command.extra_body, "--extra-body");
  LOWBIT_CHECK(extra.is_object(), "--extra-body is not a JSON object");
  std::vector<ServerRequest> sent;
  for (const WorkloadRequest& request : requests) {
    ServerRequest next;
    next.body = request_body(command, request, sent.size(), tokenizer);
    next.body.merge_patch(extra);  // null removes a member
    next.input_tokens = static_cast<int64_t>(request.prompt.size());
    sent.push_back(std::move(next));
  }
  return sent;
}

void run_server(ThroughputCommand& command) {
  ServerLoadOptions& options = command.server;
  options.request_rate = command.options.request_rate;
  options.seed = command.options.seed;
  options.stop = interrupted;
  if (command.served_name.empty()) command.served_name = first_model_name(options);
  const ServerLoadResult result = measure_server(server_requests(command), options);
  if (command.json) {
    OrderedJson out;
    out["url"] = options.url;
    out["served_model"] = command.served_name;
    out["request_rate"] = options.request_rate;
    out["max_concurrency"] = options.max_concurrency;
    add_load(out, result.load);
    out["failed"] = result.failed;
    out["refused"] = result.refused;
    out["refusal_ms"] = to_json(result.refusal);
    if (result.failed > 0) out["first_fault"] = result.first_fault;
    std::printf("%s\n", dump_json(out, 2).c_str());
  } else {
    std::printf("%s at %s%s\n", command.served_name.c_str(), options.url.c_str(),
                options.endpoint.c_str());
    print_load(result.load);
    if (result.refused > 0) {
      std::printf("%lld refused (429 or 503), p99 after %.1f ms\n",
                  static_cast<long long>(result.refused), result.refusal.p99);
    }
    if (result.failed > 0) {
      std::printf("%lld FAILED; the first: %s\n", static_cast<long long>(result.failed),
                  result.first_fault.c_str());
    }
  }
  if (interrupted()) throw Exit{130};
  if (result.failed > 0) throw Exit{1};
}

void execute(ThroughputCommand& command) {
  command.options.seed = static_cast<uint64_t>(command.seed);
  if (command.server.url.empty()) {
    run_engine(command);
  } else {
    run_server(command);
  }
}

void add_workload_options(CLI::App& sub, ThroughputCommand& command) {
  const CLI::Range counts(int64_t{1}, int64_t{1} << 24);
  sub.add_option("--num-prompts", command.num_prompts, "Requests")
      ->check(counts)
      ->capture_default_str();
  sub.add_option("--dataset", command.dataset,
                 "Conversations instead of random tokens: ShareGPT's JSON, or a line of JSON each")
      ->type_name("FILE");
  sub.add_option("--input-len", command.input_len, "Tokens of each random prompt")
      ->check(counts)
      ->capture_default_str();
  sub.add_option("--output-len", command.output_len,
                 "Tokens of each answer (default: 250, or as in the dataset)")
      ->check(counts);
  sub.add_option("--request-rate", command.options.request_rate,
                 "Requests per second, at random times (0: all at the start)")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  sub.add_option("--temp,--temperature", command.options.sampling.temperature,
                 "Temperature (0: greedy)")
      ->check(CLI::Range(0.0f, 100.0f))
      ->capture_default_str();
  sub.add_option("--seed", command.seed, "Seed of prompts, arrivals and draws")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 53))
      ->capture_default_str();
}

void add_engine_options(CLI::App& sub, ThroughputCommand& command) {
  sub.add_option("--max-num-seqs", command.engine.max_num_seqs, "Requests running at once")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  sub.add_option("--max-num-batched-tokens", command.engine.max_num_batched_tokens,
                 "Tokens in one step (0: as -b)")
      ->check(CLI::Range(int64_t{0}, int64_t{65536}))
      ->capture_default_str();
  command.run.add_to(sub);
  command.draft.add_to(sub);
}

void add_server_options(CLI::App& sub, ThroughputCommand& command) {
  ServerLoadOptions& server = command.server;
  auto* url = sub.add_option("--url", server.url,
                             "Measure this OpenAI-compatible server instead (http://host:port); of "
                             "MODEL, only the tokenizer is used");
  sub.add_option("--endpoint", server.endpoint, "/v1/completions or /v1/chat/completions")
      ->needs(url)
      ->capture_default_str();
  sub.add_option("--max-concurrency", server.max_concurrency, "Requests in flight (0: any number)")
      ->check(CLI::NonNegativeNumber)
      ->needs(url)
      ->capture_default_str();
  sub.add_option("--api-key", server.api_key, "Its API key")->envname("LOWBIT_API_KEY");
  sub.add_option("--served-model-name", command.served_name,
                 "The model's name there (default: the first that it lists)")
      ->needs(url);
  sub.add_flag("--prompt-ids", command.prompt_ids,
               "Send prompts as token ids, so that lengths are exact (vLLM, llama-server, lowbit)")
      ->needs(url);
  sub.add_option("--extra-body", command.extra_body,
                 "JSON to merge into every request; null removes a member")
      ->needs(url);
  sub.add_option("--timeout", server.timeout_seconds, "Seconds without a byte before giving up")
      ->check(CLI::PositiveNumber)
      ->needs(url)
      ->capture_default_str();
}

}  // namespace

void add_bench_throughput(CLI::App& bench) {
  auto command = std::make_shared<ThroughputCommand>();
  // vLLM's: everything is drawn from, so that sampling is not made cheap.
  command->options.sampling.temperature = 1;
  command->options.sampling.top_k = 0;
  command->options.sampling.top_p = 1;
  command->options.sampling.min_p = 0;
  CLI::App& sub = *bench.add_subcommand("throughput", "Speed of many requests at once (as vLLM's)");
  sub.footer(
      "Example: lowbit bench throughput -m model.gguf --num-prompts 64 --max-num-seqs 64\n"
      "         lowbit bench throughput --shape llama-3.1-8b --random-weights --format fp8 "
      "--backend cuda --max-num-seqs 256 -b 2048\n"
      "         lowbit bench throughput -m model.gguf --url http://localhost:8000 "
      "--max-concurrency 64");
  command->measured.add_to(sub);
  add_workload_options(sub, *command);
  add_engine_options(sub, *command);
  add_server_options(sub, *command);
  sub.add_flag("--json", command->json, "Print one JSON object");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app

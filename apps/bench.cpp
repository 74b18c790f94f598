// lowbit bench: speed.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "bench_machine.h"
#include "commands.h"
#include "lowbit/base/file.h"
#include "lowbit/bench/latency.h"
#include "lowbit/bench/tokenizer_bench.h"
#include "lowbit/report/table.h"
#include "lowbit/runtime/cuda/cuda_backend.h"
#include "measured_model.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct LatencyCommand {
  MeasuredModel measured;
  RunOptions run;
  LatencyOptions options;
  std::string trace, peers;
  bool json = false;
};

// read_limit: GB/s that the device was measured to read, 0 if nobody measured.
OrderedJson to_json(const LatencyRow& row, const LatencyCommand& command, Session& session,
                    double read_limit) {
  OrderedJson out;
  out["model"] = command.measured.model;
  out["format"] = session.checkpoint().format();
  out["backend"] = session.backend().description();
  out["kernels"] = session.model().kernels();
  out["n_prompt"] = row.prompt_tokens;
  out["n_gen"] = row.decode_tokens;
  out["depth"] = row.depth;
  out["repetitions"] = row.repetitions;
  out["prefill_tok_s"] = row.prefill_tok_s.median;
  out["prefill_stddev"] = row.prefill_tok_s.stddev;
  out["decode_tok_s"] = row.decode_tok_s.median;
  out["decode_stddev"] = row.decode_tok_s.stddev;
  out["weight_gb_s"] = row.weight_gb_s;
  out["read_gb_s"] = row.read_gb_s;
  if (read_limit > 0) {
    out["device_read_gb_s"] = read_limit;
    out["share"] = row.read_gb_s / read_limit;
  }
  out["peak_memory_mib"] = row.peak_memory_mib;
  out["load_seconds"] = session.load_seconds();
  return out;
}

OrderedJson to_json(const BatchedRow& row, const LatencyCommand& command, Session& session) {
  OrderedJson out;
  out["model"] = command.measured.model;
  out["format"] = session.checkpoint().format();
  out["backend"] = session.backend().description();
  out["sequences"] = row.sequences;
  out["n_gen"] = command.options.decode_tokens;
  out["repetitions"] = command.options.repetitions;
  out["decode_tok_s"] = row.tok_s.median;
  out["decode_stddev"] = row.tok_s.stddev;
  return out;
}

void print_latency(const std::vector<LatencyRow>& rows, const std::vector<BatchedRow>& batched,
                   const LatencyCommand& command, Session& session, double read_limit) {
  Table table({"model", "backend", "test", ">tok/s (median ± sd)", ">weights GB/s", ">read GB/s",
               ">peak MiB"});
  const std::string name = fs::path(command.measured.model).filename().string();
  const std::string backend = session.backend().description();
  const auto speed = [](const Rate& rate) {
    return fixed(rate.median, 2) + " ± " + fixed(rate.stddev, 2);
  };
  for (const LatencyRow& row : rows) {
    table.add({name, backend, concat("pp", row.prompt_tokens), speed(row.prefill_tok_s)});
  }
  const LatencyRow& last = rows.back();
  const std::string depth = last.depth > 0 ? concat(" @ d", last.depth) : "";
  table.add({name, backend, concat("tg", last.decode_tokens, depth), speed(last.decode_tok_s),
             fixed(last.weight_gb_s, 2), fixed(last.read_gb_s, 2), fixed(last.peak_memory_mib, 1)});
  for (const BatchedRow& row : batched) {
    table.add(
        {name, backend, concat("tg", last.decode_tokens, " x ", row.sequences), speed(row.tok_s)});
  }
  std::printf("%s", table.text().c_str());
  if (read_limit > 0) {
    std::printf("%.1f %% of the %.0f GB/s that this device was measured to read\n",
                100 * last.read_gb_s / read_limit, read_limit);
  }
}

// What of PyTorch is nearest to a format of random weights.
std::string peer_format(const std::string& format) {
  if (format.find("fp8") != std::string::npos) return "fp8";
  return format.find("w4") != std::string::npos || format.find("q4") != std::string::npos ? "int4"
                                                                                          : "bf16";
}

// Runs the script that decodes in PyTorch (bench/peers/torch_decode.py); what it printed.
OrderedJson measure_peer(const LatencyCommand& command) {
  const LatencyOptions& options = command.options;
  LOWBIT_CHECK(fs::exists(command.peers), command.peers,
               ": no such file; name the script that measures PyTorch, bench/peers/torch_decode.py "
               "of the source tree");
  LOWBIT_CHECK(command.peers.find('\'') == std::string::npos, command.peers,
               ": a name with a quote");
  const std::string line =
      concat("python3 '", command.peers, "' --shape ", command.measured.random.shape, " --format ",
             peer_format(command.measured.format), " --context ",
             std::max<int64_t>(options.depth, 1) + options.decode_tokens, " --tokens ",
             options.decode_tokens, " --repetitions ", options.repetitions);
  std::string printed;
  FILE* pipe = popen(line.c_str(), "r");
  LOWBIT_CHECK_KIND(pipe != nullptr, ErrorKind::kIo, "cannot run ", line);
  for (char buffer[4096]; std::fgets(buffer, sizeof buffer, pipe) != nullptr;) printed += buffer;
  const int status = pclose(pipe);
  LOWBIT_CHECK_KIND(status == 0, ErrorKind::kIo, "the peer failed: ", line);
  return parse_json(printed, "the peer's answer");
}

void print_peer(const OrderedJson& peer, double ours) {
  const double theirs = peer.at("tok_s").get<double>();
  std::printf("%s (PyTorch %s): %.2f tok/s, lowbit is %.2f times as fast\n",
              peer.at("name").get<std::string>().c_str(),
              peer.at("version").get<std::string>().c_str(), theirs, ours / theirs);
}

void run_latency(LatencyCommand& command) {
  LatencyOptions& options = command.options;
  options.kv_dtype = command.run.kv_dtype();
  const int64_t longest =
      *std::max_element(options.prompt_tokens.begin(), options.prompt_tokens.end());
  command.run.context = std::max(longest, options.depth + options.decode_tokens);
  for (const int64_t sequences : options.sequences) {
    command.run.batch = std::max(command.run.batch, sequences);
  }
  Session session(command.measured.open(), command.run);
  const double read_limit = session.backend().name() == "cuda" ? cuda_read_bandwidth() : 0;
  TraceFile trace(command.trace);
  const std::vector<LatencyRow> rows = measure_latency(session.model(), options);
  const std::vector<BatchedRow> batched = measure_batched(session.model(), options);
  trace.write();
  const OrderedJson peer = command.peers.empty() ? OrderedJson() : measure_peer(command);
  if (!command.json) {
    print_latency(rows, batched, command, session, read_limit);
    if (!peer.is_null()) print_peer(peer, rows.back().decode_tok_s.median);
    return;
  }
  OrderedJson out = OrderedJson::array();
  for (const LatencyRow& row : rows) out.push_back(to_json(row, command, session, read_limit));
  for (const BatchedRow& row : batched) out.push_back(to_json(row, command, session));
  if (!peer.is_null()) out.push_back(peer);
  std::printf("%s\n", dump_json(out, 2).c_str());
}

// --shape and what belongs to it, instead of -m.
void add_latency(CLI::App& bench) {
  auto command = std::make_shared<LatencyCommand>();
  CLI::App& sub =
      *bench.add_subcommand("latency", "Prefill and decode speed of one sequence (as llama-bench)");
  sub.footer(
      "Example: lowbit bench latency -m model.gguf -p 512 -n 128 -r 5\n"
      "         lowbit bench latency --shape llama-3.1-8b --random-weights --format w4a16_g128 "
      "-d 1024 --backend cuda");
  command->measured.add_to(sub);
  sub.add_option("-p,--n-prompt", command->options.prompt_tokens,
                 "Tokens to prefill (several, separated by commas: a row each)")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  sub.add_option("-n,--n-gen", command->options.decode_tokens, "Tokens to decode")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  sub.add_option("-d,--n-depth", command->options.depth, "Tokens of context before those decoded")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  sub.add_option("--sequences", command->options.sequences,
                 "Also decode this many sequences side by side (several: a row each)")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{4096}));
  sub.add_option("-r,--repetitions", command->options.repetitions, "Repetitions")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  sub.add_option("-b,--batch-size", command->run.batch, "Tokens per pass")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  command->run.add_to(sub, /*context_options=*/false);
  add_trace_option(sub, command->trace);
  sub.add_option("--compare-peers", command->peers,
                 "Also measure PyTorch with this script (needs python3 and torch with CUDA)")
      ->type_name("SCRIPT")
      ->expected(0, 1)
      ->default_str("bench/peers/torch_decode.py")
      ->needs("--shape");
  sub.add_flag("--json", command->json, "Print a JSON list of rows");
  sub.callback([command] { run_latency(*command); });
}

struct TokenizerCommand {
  std::string model, file;
  int repetitions = 5;
  bool json = false;
};

void run_tokenizer(const TokenizerCommand& command) {
  const Tokenizer tokenizer(open_checkpoint(command.model)->tokenizer());
  const std::string text = read_text(command.file);
  const TokenizerBenchResult result = bench_tokenizer(tokenizer, text, command.repetitions);
  if (command.json) {
    const OrderedJson out{{"seconds", result.seconds},
                          {"tokens", result.tokens},
                          {"tok_s", result.tokens / result.seconds},
                          {"mb_s", result.mb_s}};
    std::printf("%s\n", dump_json(out).c_str());
    return;
  }
  std::printf("%lld tokens in %.3f s (median of %d): %.2f M tok/s, %.1f MB/s, one thread\n",
              static_cast<long long>(result.tokens), result.seconds, command.repetitions,
              static_cast<double>(result.tokens) / result.seconds / 1e6, result.mb_s);
}

void add_tokenizer(CLI::App& bench) {
  auto command = std::make_shared<TokenizerCommand>();
  CLI::App& sub = *bench.add_subcommand("tokenizer", "Tokenization speed on one thread");
  sub.footer("Example: lowbit bench tokenizer -m model.gguf -f wiki.test.raw");
  add_model_option(sub, command->model);
  sub.add_option("-f,--file", command->file, "The text")->required();
  sub.add_option("-r,--repetitions", command->repetitions, "Repetitions")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  sub.add_flag("--json", command->json, "Print one JSON object");
  sub.callback([command] { run_tokenizer(*command); });
}

}  // namespace

void add_bench(CLI::App& program) {
  CLI::App& sub = *program.add_subcommand("bench", "Measure speed");
  sub.require_subcommand(1);
  sub.footer("Example: lowbit bench latency -m model.gguf");
  add_bench_attention(sub);
  add_bench_kernels(sub);
  add_latency(sub);
  add_bench_quantize(sub);
  add_bench_roofline(sub);
  add_bench_throughput(sub);
  add_tokenizer(sub);
}

}  // namespace lowbit::app

// lowbit bench: speed.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "bench_machine.h"
#include "commands.h"
#include "lowbit/base/check.h"
#include "lowbit/base/file.h"
#include "lowbit/bench/latency.h"
#include "lowbit/bench/random_checkpoint.h"
#include "lowbit/bench/tokenizer_bench.h"
#include "lowbit/report/table.h"
#include "lowbit/runtime/cuda/cuda_backend.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct LatencyCommand {
  std::string model;
  std::string shape, format = "w4a16_g128";
  bool random_weights = false;
  RunOptions run;
  LatencyOptions options;
  bool json = false;
};

// The model to time: a checkpoint's, or one of random weights.
struct TimedModel {
  explicit TimedModel(const LatencyCommand& command) {
    const double start = now_seconds();
    if (command.shape.empty()) {
      checkpoint = open_checkpoint(command.model);
    } else {
      checkpoint = std::make_unique<RandomCheckpoint>(command.shape, command.format);
    }
    backend = command.run.make();
    ModelOptions options;
    options.context = command.run.context;
    options.max_batch = command.run.batch;
    model = std::make_unique<Model>(*checkpoint, *backend, options);
    load_seconds = now_seconds() - start;
    if (backend->name() == "cuda") read_limit = cuda_read_bandwidth();
  }

  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;
  double load_seconds = 0;
  double read_limit = 0;  // GB/s of the device, measured; 0: unknown
};

OrderedJson to_json(const LatencyRow& row, const LatencyCommand& command,
                    const TimedModel& timed) {
  OrderedJson out;
  out["model"] = command.shape.empty() ? command.model : command.shape;
  out["format"] = timed.checkpoint->format();
  out["backend"] = timed.backend->description();
  out["kernels"] = timed.model->kernels();
  out["n_prompt"] = row.prompt_tokens;
  out["n_gen"] = row.decode_tokens;
  out["depth"] = row.depth;
  out["repetitions"] = row.repetitions;
  out["prefill_tok_s"] = row.prefill_tok_s.median;
  out["prefill_stddev"] = row.prefill_tok_s.stddev;
  out["decode_tok_s"] = row.decode_tok_s.median;
  out["decode_stddev"] = row.decode_tok_s.stddev;
  out["weight_gb_s"] = row.weight_gb_s;
  out["peak_memory_mib"] = row.peak_memory_mib;
  out["read_gb_s"] = row.read_gb_s;
  if (timed.read_limit > 0) {
    out["device_read_gb_s"] = timed.read_limit;
    out["share"] = row.read_gb_s / timed.read_limit;
  }
  out["load_seconds"] = timed.load_seconds;
  return out;
}

void print_latency(const std::vector<LatencyRow>& rows, const LatencyCommand& command,
                   const TimedModel& timed) {
  Table table({"model", "backend", "test", ">tok/s (median ± sd)", ">weights GB/s",
               ">read GB/s", ">peak MiB"});
  const std::string name = command.shape.empty() ? fs::path(command.model).filename().string()
                                                 : command.shape + " " + command.format;
  const std::string backend = timed.backend->description();
  const auto speed = [](const Rate& rate) {
    return fixed(rate.median, 2) + " ± " + fixed(rate.stddev, 2);
  };
  for (const LatencyRow& row : rows) {
    table.add({name, backend, concat("pp", row.prompt_tokens), speed(row.prefill_tok_s)});
  }
  const LatencyRow& last = rows.back();
  const std::string depth = last.depth > 0 ? concat(" @ d", last.depth) : "";
  table.add({name, backend, concat("tg", last.decode_tokens, depth), speed(last.decode_tok_s),
             fixed(last.weight_gb_s, 2), fixed(last.read_gb_s, 2),
             fixed(last.peak_memory_mib, 1)});
  std::printf("%s", table.text().c_str());
  if (timed.read_limit > 0) {
    std::printf("%.1f %% of the %.0f GB/s that this device was measured to read\n",
                100 * last.read_gb_s / timed.read_limit, timed.read_limit);
  }
}

void run_latency(LatencyCommand& command) {
  LOWBIT_CHECK(command.shape.empty() != command.model.empty() &&
                   command.random_weights == !command.shape.empty(),
               "give either -m MODEL, or --shape NAME --random-weights");
  LatencyOptions& options = command.options;
  options.kv_dtype = command.run.kv_dtype();
  const int64_t longest =
      *std::max_element(options.prompt_tokens.begin(), options.prompt_tokens.end());
  command.run.context = std::max(longest, options.depth + options.decode_tokens);
  const TimedModel timed(command);
  const std::vector<LatencyRow> rows = measure_latency(*timed.model, options);
  if (command.json) {
    OrderedJson out = OrderedJson::array();
    for (const LatencyRow& row : rows) out.push_back(to_json(row, command, timed));
    std::printf("%s\n", dump_json(out, 2).c_str());
    return;
  }
  print_latency(rows, command, timed);
}

void add_latency(CLI::App& bench) {
  auto command = std::make_shared<LatencyCommand>();
  CLI::App& sub =
      *bench.add_subcommand("latency", "Prefill and decode speed of one sequence (as llama-bench)");
  sub.footer(
      "Example: lowbit bench latency -m model.gguf -p 512 -n 128 -r 5\n"
      "         lowbit bench latency --shape llama-3.1-8b --random-weights --format w4a16_g128 "
      "-d 1024 --backend cuda");
  sub.add_option("-m,--model", command->model,
                 "Model: a folder, a .gguf file, or ORG/NAME in the Hugging Face cache")
      ->type_name("MODEL");
  sub.add_option("--shape", command->shape, "Without files: the shape of this model")
      ->check(CLI::IsMember(random_shapes()));
  sub.add_flag("--random-weights", command->random_weights, "Weights for --shape");
  sub.add_option("--format", command->format, "Format of random weights")
      ->check(CLI::IsMember(random_formats()))
      ->capture_default_str();
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
  sub.add_option("-r,--repetitions", command->options.repetitions, "Repetitions")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  sub.add_option("-b,--batch-size", command->run.batch, "Tokens per pass")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  command->run.add_to(sub, /*context_options=*/false);
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
  add_bench_kernels(sub);
  add_latency(sub);
  add_bench_roofline(sub);
  add_tokenizer(sub);
}

}  // namespace lowbit::app

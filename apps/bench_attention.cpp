// lowbit bench attention.
#include <cstdio>
#include <memory>

#include "bench_machine.h"
#include "commands.h"
#include "lowbit/base/json.h"
#include "lowbit/base/limits.h"
#include "lowbit/bench/attention.h"
#include "lowbit/report/table.h"
#include "lowbit/runtime/cuda/cuda_backend.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct AttentionCommand {
  AttentionBenchOptions options;
  std::string backend = "cpu", cache_type = "auto";
  int threads = 0;
  bool json = false;
};

void run_attention(AttentionCommand& command) {
  AttentionBenchOptions& options = command.options;
  options.kv_dtype = kv_cache_types().at(command.cache_type);
  const auto backend = make_backend(command.backend, {command.threads, Activations::kDefault});
  const double limit = backend->name() == "cuda" ? cuda_read_bandwidth() : 0;
  OrderedJson out = OrderedJson::array();
  Table table({"attention", ">us", ">GB/s", ">% of read", ">TFLOP/s"});
  measure_attention(*backend, options, [&](const AttentionRow& row) {
    const double share = limit > 0 && row.sequences > 0 ? row.gb_s() / limit : 0;
    const std::string name = row.sequences > 0 ? concat("decode ", row.sequences, " x ", row.tokens)
                                               : concat("prefill ", row.tokens, ", causal");
    table.add({name, fixed(row.seconds * 1e6, 2), fixed(row.gb_s(), 1),
               share > 0 ? fixed(100 * share, 1) : "", fixed(row.tflop_s(), 2)});
    OrderedJson line;
    line["sequences"] = row.sequences;
    line["tokens"] = row.tokens;
    line["us"] = row.seconds * 1e6;
    line["gb_s"] = row.gb_s();
    if (share > 0) line["share"] = share;
    line["tflop_s"] = row.tflop_s();
    out.push_back(line);
  });
  if (command.json) {
    std::printf("%s\n", dump_json(out, 2).c_str());
    return;
  }
  std::printf("%s: %lld heads on %lld of %lld, cache of %s\n%s", backend->description().c_str(),
              static_cast<long long>(options.shape.heads),
              static_cast<long long>(options.shape.kv_heads),
              static_cast<long long>(options.shape.head_dim), kv_name_of(options.kv_dtype),
              table.text().c_str());
  if (limit > 0) std::printf("this device was measured to read %.0f GB/s\n", limit);
}

void add_shape(CLI::App& sub, AttentionShape& shape) {
  const auto count = CLI::Range(int64_t{1}, int64_t{1024});
  sub.add_option("--heads", shape.heads, "Query heads")->check(count)->capture_default_str();
  sub.add_option("--kv-heads", shape.kv_heads, "Key/value heads")
      ->check(count)
      ->capture_default_str();
  sub.add_option("--head-dim", shape.head_dim, "Dimensions of a head")
      ->check(count)
      ->capture_default_str();
  sub.add_option("--window", shape.sliding_window, "Keys a query sees (0: all)")
      ->check(CLI::Range(int64_t{0}, limits::kContext))
      ->capture_default_str();
}

}  // namespace

void add_bench_attention(CLI::App& bench) {
  auto command = std::make_shared<AttentionCommand>();
  CLI::App& sub = *bench.add_subcommand("attention", "Speed of attention alone");
  sub.footer(
      "Example: lowbit bench attention --backend cuda --sequences 32 --context 8192 -p 4096");
  AttentionBenchOptions& options = command->options;
  add_shape(sub, options.shape);
  const auto tokens = CLI::Range(int64_t{1}, limits::kContext);
  sub.add_option("--sequences", options.sequences, "Sequences decoded side by side (several: each)")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  sub.add_option("-d,--context", options.contexts, "Tokens that each stands at (several: each)")
      ->delimiter(',')
      ->check(tokens)
      ->capture_default_str();
  sub.add_option("-p,--n-prompt", options.prompts, "Tokens of a prompt (several: a row each)")
      ->delimiter(',')
      ->check(tokens)
      ->capture_default_str();
  sub.add_option("--seconds", options.seconds, "Time of each row")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  sub.add_option("--backend", command->backend, "cpu, cuda or ref")
      ->check(CLI::IsMember(backend_names()))
      ->capture_default_str();
  sub.add_option("--kv-cache-dtype,--cache-type", command->cache_type,
                 "Key/value cache: fp16 (auto), fp32, fp8, int8 or int4")
      ->check(CLI::IsMember(kv_cache_types()))
      ->type_name("DTYPE")
      ->capture_default_str();
  sub.add_option("-t,--threads", command->threads, "Threads (0: all)")->check(CLI::Range(0, 4096));
  sub.add_flag("--json", command->json, "Print a JSON list of rows");
  sub.callback([command] { run_attention(*command); });
}

}  // namespace lowbit::app

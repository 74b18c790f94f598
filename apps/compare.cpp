// lowbit compare: several checkpoints side by side.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "commands.h"
#include "lowbit/base/file.h"
#include "lowbit/bench/latency.h"
#include "lowbit/eval/perplexity.h"
#include "lowbit/report/table.h"
#include "session.h"
#include "window_options.h"

namespace lowbit::app {

namespace {

struct CompareCommand {
  std::vector<std::string> models;
  std::string file;
  RunOptions run;
  WindowOptions perplexity;
  LatencyOptions latency;
  bool json = false;
};

OrderedJson measure(const std::string& model, const CompareCommand& command,
                    const std::string& text) {
  Session session(model, command.run);
  int64_t bytes = 0, weights = 0;
  for (const TensorInfo& tensor : session.checkpoint().tensors()) {
    int64_t count = 1;
    for (const int64_t dimension : tensor.shape) count *= dimension;
    weights += count;
    bytes += tensor.bytes;
  }
  const LatencyRow speed = measure_latency(session.model(), command.latency).front();
  const PerplexityResult quality =
      perplexity(session.model(), session.tokenizer(), text, command.perplexity);
  OrderedJson row;
  row["model"] = fs::path(model).filename().string();
  row["format"] = session.checkpoint().format();
  row["mib"] = static_cast<double>(bytes) / (1 << 20);
  row["bits_per_weight"] = 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
  row["ppl"] = quality.ppl;
  row["stderr"] = quality.stderr_ppl;
  row["prefill_tok_s"] = speed.prefill_tok_s.median;
  row["decode_tok_s"] = speed.decode_tok_s.median;
  return row;
}

void execute(CompareCommand& command) {
  WindowOptions& options = command.perplexity;
  if (options.context == 0) options.context = find_protocol(options.protocol).context;
  options.kv_dtype = command.latency.kv_dtype = command.run.kv_dtype();
  command.run.context = std::max(
      {options.context, command.latency.prompt_tokens.front(), command.latency.decode_tokens});
  const std::string text = read_text(command.file);
  OrderedJson rows = OrderedJson::array();
  for (const std::string& model : command.models) rows.push_back(measure(model, command, text));
  if (command.json) {
    std::printf("%s\n", dump_json(rows, 2).c_str());
    return;
  }
  Table table({"model", "format", ">MiB", ">bits/weight", ">perplexity", ">prefill tok/s",
               ">decode tok/s"});
  for (const OrderedJson& row : rows) {
    table.add({row["model"], row["format"], fixed(row["mib"], 1), fixed(row["bits_per_weight"], 2),
               fixed(row["ppl"], 3), fixed(row["prefill_tok_s"], 1),
               fixed(row["decode_tok_s"], 1)});
  }
  std::printf("%s", table.text().c_str());
}

}  // namespace

void add_compare(CLI::App& program) {
  auto command = std::make_shared<CompareCommand>();
  command->latency.repetitions = 2;
  CLI::App& sub =
      *program.add_subcommand("compare", "Size, perplexity and speed of several models");
  sub.footer("Example: lowbit compare model.gguf model-w4 -f wiki.test.raw --chunks 8");
  sub.add_option("MODEL", command->models, "The checkpoints")->required();
  sub.add_option("-f,--file", command->file, "Text to measure perplexity on")->required();
  add_window_options(sub, command->perplexity);
  command->run.add_to(sub, /*context_options=*/false);
  sub.add_flag("--json", command->json, "Print a JSON list of rows");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app

// lowbit perplexity: how well a model predicts a text.
#include "lowbit/eval/perplexity.h"

#include <cstdio>
#include <memory>

#include "commands.h"
#include "lowbit/report/table.h"
#include "session.h"
#include "window_options.h"

namespace lowbit::app {

namespace {

struct PerplexityCommand {
  std::string model, file;
  RunOptions run;
  WindowOptions options;
  bool json = false;
};

void execute(PerplexityCommand& command) {
  WindowOptions& options = command.options;
  if (options.context == 0) options.context = find_protocol(options.protocol).context;
  options.kv_dtype = command.run.kv_dtype();
  const std::string text = read_text(command.file);
  command.run.context = options.context;
  Session session(command.model, command.run);
  const PerplexityResult result = perplexity(session.model(), session.tokenizer(), text, options);
  if (command.json) {
    OrderedJson out;
    out["protocol"] = result.protocol;
    out["ctx"] = result.context;
    out["chunks"] = result.chunks;
    out["tokens"] = result.tokens;
    out["ppl"] = result.ppl;
    out["stderr"] = result.stderr_ppl;
    out["tok_s"] = result.tok_s;
    std::printf("%s\n", dump_json(out).c_str());
    return;
  }
  std::printf(
      "perplexity %.4f ± %.4f  (protocol %s, context %lld, %lld chunks, %lld tokens scored)\n",
      result.ppl, result.stderr_ppl, result.protocol.c_str(),
      static_cast<long long>(result.context), static_cast<long long>(result.chunks),
      static_cast<long long>(result.tokens));
  std::fprintf(stderr, "%.1f s, %.1f tok/s | %s\n", result.seconds, result.tok_s,
               session.backend().description().c_str());
}

}  // namespace

void add_perplexity(CLI::App& program) {
  auto command = std::make_shared<PerplexityCommand>();
  CLI::App& sub = *program.add_subcommand("perplexity", "Measure a model's perplexity on a text");
  sub.footer("Example: lowbit perplexity -m model.gguf -f wiki.test.raw --protocol llama.cpp");
  add_model_option(sub, command->model);
  sub.add_option("-f,--file", command->file, "The text (-: standard input)")->required();
  add_window_options(sub, command->options);
  sub.add_option("-b,--batch-size", command->run.batch, "Tokens per pass")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  command->run.add_to(sub, /*context_options=*/false);
  sub.add_flag("--json", command->json, "Print one JSON object");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app

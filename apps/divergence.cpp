// lowbit divergence: how far a model's predictions are from a reference's.
#include "lowbit/eval/divergence.h"

#include <cstdio>
#include <memory>

#include "commands.h"
#include "lowbit/report/table.h"
#include "session.h"
#include "window_options.h"

namespace lowbit::app {

namespace {

struct DivergenceCommand {
  std::string model, reference, file, save;
  RunOptions run;
  WindowOptions options{.protocol = "llama.cpp"};
  bool json = false;
};

OrderedJson json(const DivergenceResult::Estimate& estimate) {
  OrderedJson out;
  out["mean"] = estimate.mean;
  out["stderr"] = estimate.error;
  return out;
}

OrderedJson json(const DivergenceResult::Quantiles& q) {
  OrderedJson out;
  out["min"] = q.min;
  out["q01"] = q.q01;
  out["q05"] = q.q05;
  out["q10"] = q.q10;
  out["median"] = q.median;
  out["q90"] = q.q90;
  out["q95"] = q.q95;
  out["q99"] = q.q99;
  out["q999"] = q.q999;
  out["max"] = q.max;
  return out;
}

void print_json(const DivergenceResult& result) {
  OrderedJson out;
  out["ctx"] = result.context;
  out["chunks"] = result.chunks;
  out["tokens"] = result.tokens;
  out["ppl"] = json(result.ppl);
  out["reference_ppl"] = json(result.reference_ppl);
  out["log_ppl_ratio"] = json(result.log_ppl_ratio);
  out["kl"] = json(result.kl);
  out["kl_quantiles"] = json(result.kl_quantiles);
  out["delta_p"] = json(result.delta_p);
  out["rms_delta_p"] = result.rms_delta_p;
  out["delta_p_quantiles"] = json(result.delta_p_quantiles);
  out["same_top"] = json(result.same_top);
  std::printf("%s\n", dump_json(out).c_str());
}

void print_text(const DivergenceResult& r) {
  const auto line = [](const char* name, const DivergenceResult::Estimate& value, double factor,
                       const char* unit) {
    std::printf("%-22s %11.6f ± %.6f%s\n", name, value.mean * factor, value.error * factor, unit);
  };
  std::printf("%lld chunks of %lld tokens, %lld predictions compared\n",
              static_cast<long long>(r.chunks), static_cast<long long>(r.context),
              static_cast<long long>(r.tokens));
  line("perplexity", r.ppl, 1, "");
  line("reference perplexity", r.reference_ppl, 1, "");
  line("ln(ratio of both)", r.log_ppl_ratio, 1, "");
  line("mean KL divergence", r.kl, 1, " nats");
  const DivergenceResult::Quantiles& kl = r.kl_quantiles;
  std::printf("%-22s %11.6f  90 %% %.6f  99 %% %.6f  99.9 %% %.6f  max %.6f\n", "median KL",
              kl.median, kl.q90, kl.q99, kl.q999, kl.max);
  line("mean change of p", r.delta_p, 100, " %");
  const DivergenceResult::Quantiles& p = r.delta_p_quantiles;
  std::printf("%-22s %11.6f %%  1 %% %.3f  5 %% %.3f  95 %% %.3f  99 %% %.3f\n", "RMS change of p",
              100 * r.rms_delta_p, 100 * p.q01, 100 * p.q05, 100 * p.q95, 100 * p.q99);
  line("same likeliest token", r.same_top, 100, " %");
}

// The reference ran before and left a file.
DivergenceResult against_file(DivergenceCommand& command) {
  LOWBIT_CHECK(command.file.empty() && command.save.empty(), "--reference ", command.reference,
               " holds the text's tokens and the logits; leave -f and --save-logits out");
  const LogitsFile reference(command.reference);
  command.run.context = reference.windows().context;
  Session session(command.model, command.run);
  return divergence(session.model(), reference, command.options.kv_dtype);
}

DivergenceResult against_model(DivergenceCommand& command) {
  LOWBIT_CHECK(!command.file.empty(), "-f TEXT is missing: a reference that is a model needs one");
  const std::string text = read_text(command.file);
  WindowOptions& options = command.options;
  if (options.context == 0) options.context = find_protocol(options.protocol).context;
  command.run.context = options.context;
  Session session(command.model, command.run);
  Session reference(command.reference, command.run);
  return divergence(session.model(), reference.model(), session.tokenizer(), text, options,
                    command.save);
}

void execute(DivergenceCommand& command) {
  command.options.kv_dtype = command.run.kv_dtype();
  const DivergenceResult result =
      is_logits_file(command.reference) ? against_file(command) : against_model(command);
  command.json ? print_json(result) : print_text(result);
  std::fprintf(stderr, "%.1f s\n", result.seconds);
}

}  // namespace

void add_divergence(CLI::App& program) {
  auto command = std::make_shared<DivergenceCommand>();
  CLI::App& sub = *program.add_subcommand(
      "divergence", "Compare a model's predictions with a reference's (KL divergence)");
  sub.footer(
      "Example: lowbit divergence -m model-w4 --reference model -f wiki.test.raw --chunks 16");
  add_model_option(sub, command->model);
  sub.add_option("--reference", command->reference,
                 "The model to compare with, or a file that --save-logits or llama.cpp's "
                 "--kl-divergence-base wrote")
      ->required();
  sub.add_option("-f,--file", command->file, "The text (-: standard input)");
  sub.add_option("--save-logits", command->save,
                 "Keep the reference's predictions in this file, for the next comparisons");
  add_window_options(sub, command->options);
  sub.add_option("-b,--batch-size", command->run.batch, "Tokens per pass")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  command->run.add_to(sub, /*context_options=*/false);
  sub.add_flag("--json", command->json, "Print one JSON object");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app

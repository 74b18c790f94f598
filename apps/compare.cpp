// lowbit compare: one model by every method of a recipe, or several checkpoints side by side.
#include "lowbit/compare/compare.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "commands.h"
#include "lowbit/base/check.h"
#include "lowbit/checkpoint/paths.h"
#include "session.h"
#include "window_options.h"

namespace lowbit::app {

namespace {

struct CompareCommand {
  std::vector<std::string> models, arguments, methods;
  std::string recipe, file, calibration, report;
  RunOptions run;
  WindowOptions windows;
  CLI::Option *protocol = nullptr, *context = nullptr, *chunks = nullptr, *activations = nullptr;
  bool json = false;
};

// "eval.context=512", and no file of that name.
bool is_override(const std::string& argument) {
  return argument.find('=') != std::string::npos && !path_exists(argument);
}

// What the options say is an override like those that are written out, and gives way to them.
std::vector<std::string> overrides(const CompareCommand& command) {
  std::vector<std::string> all;
  const WindowOptions& windows = command.windows;
  if (command.protocol->count() > 0) all.push_back("eval.protocol=" + windows.protocol);
  if (command.context->count() > 0 && windows.context > 0) {
    all.push_back(concat("eval.context=", windows.context));
  }
  if (command.chunks->count() > 0) all.push_back(concat("eval.chunks=", windows.chunks));
  if (command.activations->count() > 0) {
    all.push_back("eval.activations=" + command.run.activations);
    all.push_back("speed.activations=" + command.run.activations);
  }
  std::copy_if(command.arguments.begin(), command.arguments.end(), std::back_inserter(all),
               is_override);
  return all;
}

// With neither recipe nor methods only the checkpoints that are there are measured.
Recipe make_recipe(const CompareCommand& command) {
  if (!command.recipe.empty()) {
    Recipe recipe = read_recipe(command.recipe, overrides(command));
    if (!command.methods.empty()) keep_methods(recipe, command.methods);
    return recipe;
  }
  const bool any = !command.methods.empty();
  Recipe recipe = parse_recipe(recipe_of(any ? command.methods : std::vector<std::string>{"rtn"}),
                               "--methods", overrides(command));
  if (!any) recipe.methods.clear();
  return recipe;
}

CompareJob make_job(const CompareCommand& command) {
  CompareJob job;
  job.models = command.models;
  std::copy_if(command.arguments.begin(), command.arguments.end(), std::back_inserter(job.models),
               [](const std::string& argument) { return !is_override(argument); });
  LOWBIT_CHECK(!job.models.empty(), "no model to compare; name one with -m MODEL");
  job.recipe = make_recipe(command);
  job.text = read_text(command.file);
  job.text_name = fs::path(command.file).filename().string();
  job.calibration = command.calibration;
  job.report = command.report;
  job.measure = {command.run.backend, command.run.threads, command.run.batch,
                 command.run.kv_dtype()};
  job.say = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  job.interrupted = interrupted;
  return job;
}

void execute(const CompareCommand& command) {
  const CompareJob job = make_job(command);
  Comparison comparison;
  try {
    comparison = compare_models(job);
  } catch (const Error&) {
    if (!interrupted()) throw;
    std::fprintf(stderr, "interrupted%s\n",
                 job.report.empty() ? "" : "; the same command goes on where this one stopped");
    throw Exit{130};
  }
  if (command.json) {
    std::printf("%s\n", dump_json(comparison_json(comparison).at("rows"), 2).c_str());
  } else {
    std::printf("%s", comparison_text(comparison).c_str());
  }
  bool failed = false;
  for (const ComparisonRow& row : comparison.rows) {
    failed = failed || row.failed;
    for (const std::string& note : row.notes) {
      std::fprintf(stderr, "%s: %s: %s\n", row.failed ? "error" : "note", row.name.c_str(),
                   note.c_str());
    }
  }
  if (!job.report.empty()) {
    std::fprintf(stderr, "%s\n", (job.report / "report.html").c_str());
  }
  if (failed) throw Exit{1};
}

}  // namespace

void add_compare(CLI::App& program) {
  auto command = std::make_shared<CompareCommand>();
  CLI::App& sub = *program.add_subcommand(
      "compare", "Quantize a model by many methods, and compare size, quality and speed");
  sub.footer(
      "Example: lowbit compare -m model --recipe recipes/weight-only-4bit.yaml -f wiki.test.raw "
      "--calibration wiki.valid.raw -o report eval.chunks=16 methods.gptq.act_order=kept\n"
      "Checkpoints that are there: lowbit compare model.gguf model-w4 -f wiki.test.raw --chunks 8");
  sub.add_option("ARGUMENTS", command->arguments,
                 "More checkpoints to measure as they are, and key=value overrides of the recipe");
  sub.add_option("-m,--model", command->models,
                 "The model: a folder, a .gguf file, or ORG/NAME in the Hugging Face cache")
      ->allow_extra_args(false)
      ->type_name("MODEL");
  sub.add_option("--recipe", command->recipe, "What to run (see recipes/)")->type_name("FILE.yaml");
  sub.add_option("--methods", command->methods,
                 "Only these rows of the recipe; without a recipe, these methods at 4 bits")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("NAME,NAME");
  sub.add_option("-f,--file", command->file, "Text to measure perplexity on")->required();
  sub.add_option("--calibration", command->calibration, "Text for methods that calibrate")
      ->type_name("PATH");
  sub.add_option("-o,--output", command->report,
                 "Folder for the report and the models; a killed run goes on in it")
      ->type_name("REPORT");
  add_window_options(sub, command->windows);
  command->protocol = sub.get_option("--protocol");
  command->context = sub.get_option("--ctx-size");
  command->chunks = sub.get_option("--chunks");
  command->run.add_to(sub, /*context_options=*/false);
  command->activations = sub.get_option("--activations");
  sub.add_flag("--json", command->json, "Print a JSON list of rows");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app

// lowbit quantize: a checkpoint in, a smaller checkpoint out.
#include <cstdio>
#include <map>
#include <memory>

#include "auto_options.h"
#include "calibration_options.h"
#include "commands.h"
#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/quantize/gguf_recipe.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/report/table.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct QuantizeCommand {
  std::string model, out;
  QuantizeOptions options;
  AutoCommand automatic;
};

// One line for each row of the table.
std::string method_list() {
  std::string text;
  for (const QuantizeMethod& method : quantize_methods()) {
    text += concat("\n  ", method.name, " (", method.format, "): ", method.description);
  }
  return text;
}

// Formats that can be written.
std::string format_list() {
  std::string text;
  for (const CheckpointFormat& format : checkpoint_formats()) {
    if (format.write == nullptr || std::string(format.name) == "safetensors") continue;
    text += concat(text.empty() ? "" : ", ", format.name);
  }
  return text;
}

void execute(const QuantizeCommand& command) {
  QuantizeOptions options = command.options;
  prepare_auto(options, command.automatic);
  const QuantizeSummary summary = quantize_checkpoint(command.model, command.out, options);
  for (const std::string& notice : summary.notices) {
    std::fprintf(stderr, "note: %s\n", notice.c_str());
  }
  std::fprintf(stderr, "%s: %s, %lld linear layers at %.3f bits per weight, %.1f s%s\n",
               command.out.c_str(), human_bytes(static_cast<double>(summary.bytes)).c_str(),
               static_cast<long long>(summary.linears), summary.bits_per_weight, summary.seconds,
               summary.resumed ? " (resumed)" : "");
}

}  // namespace

void add_quantize(CLI::App& program) {
  auto command = std::make_shared<QuantizeCommand>();
  QuantizeOptions& options = command->options;
  CLI::App& sub = *program.add_subcommand("quantize", "Make a checkpoint smaller, or convert it");
  sub.footer(
      "Example: lowbit quantize -m model.gguf -o model-w4 --method rtn --bits 4 --group-size 64\n"
      "Expand a GGUF file to fp16 safetensors: lowbit quantize -m model.gguf -o model-f16 --format "
      "safetensors");
  add_model_option(sub, command->model);
  sub.add_option("-o,--output", command->out, "Folder (or .gguf file) to write")
      ->required()
      ->type_name("OUT");
  sub.add_option("--method", options.method,
                 "Quantization method (and its usual format):" + method_list())
      ->capture_default_str();
  sub.add_option("--bits", options.bits, "Bits per weight")
      ->check(CLI::Range(1, 8))
      ->capture_default_str();
  sub.add_option(
         "--group-size", options.group_size,
         "Weights of a row that share a scale: 32, 64, 128, or -1 for the whole row (default: "
         "what the format usually has; 64, the type's for GGUF)")
      ->check(CLI::IsMember({-1, 32, 64, 128}));
  sub.add_option("--activation-bits", options.input_bits,
                 "Bits that whoever runs the result rounds the layers' inputs to, token by token: "
                 "8, 4, or 16 for not at all (default: of mixq as --bits, of smoothquant 8, else "
                 "16)")
      ->check(CLI::IsMember({4, 8, 16}));
  const std::map<std::string, InputForm> forms = {{"dynamic", InputForm::kToken},
                                                  {"dynamic-asym", InputForm::kTokenZero},
                                                  {"static", InputForm::kStatic},
                                                  {"static-asym", InputForm::kStaticZero}};
  sub.add_option("--activation-scheme", options.input_form,
                 "Their scale: of each token (dynamic), or found from the calibration text and "
                 "stored (static, smoothquant only); -asym: with zero points")
      ->transform(CLI::CheckedTransformer(forms).description(""))
      ->type_name("dynamic|dynamic-asym|static|static-asym")
      ->default_str("dynamic");
  auto* sym = sub.add_flag_callback(
      "--sym", [&options] { options.symmetric = true; }, "Symmetric: no zero points (default)");
  sub.add_flag_callback(
         "--asym", [&options] { options.symmetric = false; }, "Asymmetric: with zero points")
      ->excludes(sym);
  sub.add_option("--format", options.format,
                 "gguf[:TYPE], safetensors[:f16|bf16], or one of: " + format_list() +
                     " (default: the method's). GGUF types: " + gguf_recipe_names("rtn") +
                     " (_s, _m, _l: mixes as llama-quantize makes them); by their methods " +
                     gguf_recipe_names("ternary") + ", " + gguf_recipe_names("int1"));
  sub.add_option("--skip", options.skip, "Modules to leave in 16 bits (may be repeated)")
      ->allow_extra_args(false)
      ->capture_default_str();
  add_quantize_backend_option(sub, options);
  add_calibration_text_options(sub, options.calibration);
  add_calibration_method_options(sub, options);
  add_auto_options(sub, options.method_options.automatic, command->automatic);
  sub.add_option("-t,--threads", options.threads, "Threads (0: all)")->check(CLI::Range(0, 1024));
  sub.add_flag("--force", options.force, "Replace OUT, and discard an unfinished run's work");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app

// lowbit quantize: a checkpoint in, a smaller checkpoint out.
#include <cstdio>
#include <limits>
#include <memory>

#include "commands.h"
#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/report/table.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct QuantizeCommand {
  std::string model, out;
  QuantizeOptions options;
};

// One line for each row of the table.
std::string method_list() {
  std::string text;
  for (const QuantizeMethod& method : quantize_methods()) {
    text += concat("\n  ", method.name, ": ", method.description);
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

void add_calibration_options(CLI::App& sub, QuantizeOptions& options) {
  const char* group = "Calibration";
  CalibrationOptions& calibration = options.calibration;
  sub.add_option("--calibration", calibration.path,
                 "Text that the model should be good at: a file, a .jsonl file with a \"text\" in "
                 "each line, or a folder of such files")
      ->type_name("PATH")
      ->group(group);
  sub.add_option("--samples", calibration.samples,
                 "Windows of the text to use (default: all, at most 128)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->group(group);
  sub.add_option("--seqlen", calibration.seqlen, "Tokens of a window")
      ->check(CLI::Range(int64_t{2}, limits::kContext))
      ->capture_default_str()
      ->group(group);
  sub.add_option("--seed", calibration.seed,
                 "Draw the windows at random from the whole text (-1: take the first ones)")
      ->check(CLI::Range(int64_t{-1}, std::numeric_limits<int64_t>::max()))
      ->capture_default_str()
      ->group(group);
  sub.add_option("--memory", options.memory_bytes,
                 "Bytes of activations to hold in memory; more are kept beside OUT (\"8GB\")")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str()
      ->group(group);
  GptqOptions& gptq = options.method_options.gptq;
  sub.add_option("--damp-percent", gptq.damp_percent,
                 "gptq: share of the Hessian's mean diagonal added to its diagonal")
      ->check(CLI::Range(1e-6, 1.0))
      ->capture_default_str()
      ->group(group);
  sub.add_flag("--act-order", gptq.act_order,
               "gptq: round columns with large inputs first, groups as they come")
      ->group(group);
  sub.add_flag("--static-groups", gptq.static_groups,
               "gptq: with --act-order, groups of neighbouring columns all the same")
      ->group(group);
  sub.add_option("--block-size", gptq.block_size, "gptq: columns between two updates of the rest")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str()
      ->group(group);
  AwqOptions& awq = options.method_options.awq;
  sub.add_flag("!--no-duo-scaling", awq.duo_scaling, "awq: scales from activations alone")
      ->group(group);
  sub.add_flag("!--no-clip", awq.clip, "awq: leave the groups' ranges as they are")->group(group);
  AutoRoundOptions& autoround = options.method_options.autoround;
  sub.add_option("--iters", autoround.iterations, "autoround: steps of gradient descent per block")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str()
      ->group(group);
  sub.add_option("--batch-size", autoround.batch_size,
                 "autoround: windows of one step (default: as many as have 2048 tokens)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->group(group);
  sub.add_option("--lr", autoround.learning_rate,
                 "autoround: first step of every rounding offset (default: 1 / iterations)")
      ->check(CLI::Range(1e-6, 1.0))
      ->group(group);
}

void execute(const QuantizeCommand& command) {
  const QuantizeSummary summary = quantize_checkpoint(command.model, command.out, command.options);
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
  sub.add_option("--method", options.method, "Quantization method:" + method_list())
      ->capture_default_str();
  sub.add_option("--bits", options.bits, "Bits per weight")
      ->check(CLI::Range(2, 8))
      ->capture_default_str();
  sub.add_option(
         "--group-size", options.group_size,
         "Weights of a row that share a scale: 32, 64, 128, or -1 for the whole row (default: "
         "what the format usually has; 64, 32 for GGUF)")
      ->check(CLI::IsMember({-1, 32, 64, 128}));
  auto* sym = sub.add_flag_callback(
      "--sym", [&options] { options.symmetric = true; }, "Symmetric: no zero points (default)");
  sub.add_flag_callback(
         "--asym", [&options] { options.symmetric = false; }, "Asymmetric: with zero points")
      ->excludes(sym);
  sub.add_option("--format", options.format,
                 "gguf[:q4_0|q4_1|q8_0|f16], safetensors[:f16|bf16], or one of: " + format_list())
      ->capture_default_str();
  sub.add_option("--skip", options.skip, "Modules to leave in 16 bits (may be repeated)")
      ->allow_extra_args(false)
      ->capture_default_str();
  add_calibration_options(sub, options);
  sub.add_option("-t,--threads", options.threads, "Threads (0: all)")->check(CLI::Range(0, 1024));
  sub.add_flag("--force", options.force, "Replace OUT, and discard an unfinished run's work");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app

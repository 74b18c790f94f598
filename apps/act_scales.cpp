// lowbit act-scales: the largest input of every linear's columns over calibration text.
#include "lowbit/quantize/act_scales.h"

#include <cstdio>
#include <memory>

#include "calibration_options.h"
#include "commands.h"
#include "lowbit/base/check.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct ActScalesCommand {
  std::string model, out;
  CalibrationOptions calibration;
  int threads = 0;
};

void execute(const ActScalesCommand& command) {
  LOWBIT_CHECK(!fs::exists(command.out), command.out, " exists; choose another -o");
  const auto checkpoint = open_checkpoint(command.model);
  const ModelConfig config =
      parse_model_config(checkpoint->config(), checkpoint->generation_config(), checkpoint->path());
  const CalibrationData data = load_calibration(
      command.calibration, Tokenizer(checkpoint->tokenizer()), config.max_position_embeddings);
  ThreadPool pool(command.threads);
  const ActScales scales = measure_act_scales(*checkpoint, config, data, pool);
  write_act_scales(command.out, scales);
  std::fprintf(stderr, "%s: scales of %zu linear layers over %zu samples\n", command.out.c_str(),
               scales.size(), data.windows.size());
}

}  // namespace

void add_act_scales(CLI::App& program) {
  auto command = std::make_shared<ActScalesCommand>();
  command->calibration.seqlen = 512;
  CLI::App& sub =
      *program.add_subcommand("act-scales", "Measure the largest inputs of every linear layer");
  sub.footer(
      "Example: lowbit act-scales -m model.gguf --calibration text.txt -o scales.safetensors");
  add_model_option(sub, command->model);
  sub.add_option("-o,--output", command->out, "The safetensors file to write")
      ->required()
      ->type_name("FILE");
  add_calibration_text_options(sub, command->calibration);
  sub.get_option("--calibration")->required();
  sub.add_option("-t,--threads", command->threads, "Threads (0: all)")->check(CLI::Range(0, 1024));
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app

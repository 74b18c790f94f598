// Options of `quantize --method auto`, and its choice as a table.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "lowbit/quantize/pipeline.h"

namespace lowbit::app {

// What only the command line knows.
struct AutoCommand {
  std::string plan;           // file of --auto-plan; empty: none
  bool ignore_speed = false;  // of layers on this machine
};

// --auto-*, --target-*, --max-ppl-increase, --max-slowdown, --ignore-speed
void add_auto_options(CLI::App& sub, AutoOptions& options, AutoCommand& command);
// Reads the plan, if there is one, and sees to measuring speed and telling the choice.
void prepare_auto(QuantizeOptions& options, const AutoCommand& command);

}  // namespace lowbit::app

// Options of the commands that run the windows of a text: --protocol, -c, --chunks.
#pragma once

#include <CLI/CLI.hpp>

#include "lowbit/eval/windows.h"

namespace lowbit::app {

inline void add_window_options(CLI::App& command, WindowOptions& options) {
  command
      .add_option("--protocol", options.protocol,
                  "hf: windows without overlap, all positions; llama.cpp: second half of each "
                  "chunk; mixq: as llama.cpp, probabilities through fp16")
      ->check(CLI::IsMember(protocol_names()))
      ->capture_default_str();
  command
      .add_option("-c,--ctx-size", options.context,
                  "Tokens in a window (0: 2048 for hf, 512 otherwise)")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--chunks", options.chunks, "Windows to score at most (-1: all)")
      ->capture_default_str();
}

}  // namespace lowbit::app

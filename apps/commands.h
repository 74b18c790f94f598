// The subcommands of `lowbit`, one file each. add_*() declares options; the command runs in its
// callback and throws lowbit::Error on failure.
#pragma once

#include <CLI/CLI.hpp>

namespace lowbit::app {

void add_run(CLI::App& program);
void add_chat(CLI::App& program);
void add_serve(CLI::App& program);
void add_pull(CLI::App& program);
void add_quantize(CLI::App& program);
void add_act_scales(CLI::App& program);
void add_perplexity(CLI::App& program);
void add_divergence(CLI::App& program);
void add_verify(CLI::App& program);
void add_compare(CLI::App& program);
void add_bench(CLI::App& program);
void add_inspect(CLI::App& program);
void add_tokenize(CLI::App& program);

// Set by the first ctrl-C; a second one ends the process. Commands look at it between steps.
bool interrupted();
void clear_interrupt();

// Thrown to leave with an exit code of its own, after the command has said why.
struct Exit {
  int code;
};

}  // namespace lowbit::app

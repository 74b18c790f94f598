// The subcommands of `lowbit bench` that are about the machine and its kernels.
#pragma once

#include <CLI/CLI.hpp>

namespace lowbit::app {

void add_bench_kernels(CLI::App& bench);
void add_bench_roofline(CLI::App& bench);

}  // namespace lowbit::app

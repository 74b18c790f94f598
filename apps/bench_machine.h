// Subcommands of `lowbit bench` that have a file of their own.
#pragma once

#include <CLI/CLI.hpp>

namespace lowbit::app {

void add_bench_attention(CLI::App& bench);
void add_bench_kernels(CLI::App& bench);
void add_bench_quantize(CLI::App& bench);
void add_bench_roofline(CLI::App& bench);
void add_bench_throughput(CLI::App& bench);

}  // namespace lowbit::app

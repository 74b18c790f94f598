// The CPU backend: a table of kernels for the best instruction set, on a team of threads.
// LOWBIT_CPU_ISA forces an instruction set, LOWBIT_LINEAR a layout of weights.
#pragma once

#include <memory>

#include "lowbit/runtime/backend.h"

namespace lowbit {

// Throws kUnsupported if this machine lacks what the kernels need.
std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);

}  // namespace lowbit

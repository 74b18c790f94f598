// Instruction sets: what this build has, what this machine can run, which one to use.
#pragma once

#include <string>
#include <vector>

#include "lowbit/runtime/cpu/kernels.h"

namespace lowbit::cpu {

// What the CPU has and the operating system saves (cpuid, xgetbv).
struct CpuFeatures {
  bool avx2_fma_f16c = false;
};
CpuFeatures detect_features();

// Instruction sets of this build that this machine runs, best first.
std::vector<std::string> available_isas();

// The kernels for `isa`, or the best there are if it is empty. Throws kUnsupported naming what
// there is; if there is nothing, it names the backend that always runs.
const Kernels& select_kernels(const std::string& isa);

}  // namespace lowbit::cpu

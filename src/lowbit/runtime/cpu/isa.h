// Instruction sets: what this build has, what this machine can run, which one to use.
#pragma once

#include <string>
#include <vector>

#include "lowbit/runtime/cpu/gemm_tiles.h"
#include "lowbit/runtime/cpu/kernels.h"

namespace lowbit::cpu {

// What the CPU has and the operating system saves (cpuid, xgetbv) and, for AMX, grants to this
// process (arch_prctl).
struct CpuFeatures {
  bool avx2_fma_f16c = false;
  bool avx_vnni = false;
  bool avx512 = false;  // F, BW, DQ, VL
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool amx_int8 = false;
  bool amx_bf16 = false;
};
CpuFeatures detect_features();

// Instruction sets of this build that this machine runs, best first.
std::vector<std::string> available_isas();

// The kernels for `isa`, or the best there are if it is empty. Throws kUnsupported naming what
// there is; if there is nothing, it names the backend that always runs.
const Kernels& select_kernels(const std::string& isa);

// The register tile of dense fp32 products that goes with them. If `isa` is empty and this machine
// has nothing: a portable one.
const GemmKernel& select_gemm(const std::string& isa);

}  // namespace lowbit::cpu

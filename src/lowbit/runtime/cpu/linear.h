// Linear layers of the CPU backend.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/runtime/backend.h"
#include "lowbit/runtime/cpu/layouts.h"

namespace lowbit::cpu {

// What the linears of a backend share. Inputs are prepared in `buffer`, one forward at a time.
struct LinearEnvironment {
  const Kernels* kernels = nullptr;
  std::shared_ptr<ThreadPool> pool;
  std::string forced_layout;  // LOWBIT_LINEAR, or empty
  bool int8_inputs = true;    // for quantized layouts
  bool scheme_inputs = true;  // rounded as schemes say, where they do
  WeightArena arena;
  Tensor buffer;  // grows to the largest input
};

// Packs the parts, neighbours of one scheme together, and frees their codes on the way. Throws
// kInvalidArgument if they do not fit together, kUnsupported if the forced layout cannot hold one.
std::unique_ptr<Linear> make_cpu_linear(std::vector<LinearWeight> parts,
                                        std::shared_ptr<LinearEnvironment> environment);

}  // namespace lowbit::cpu

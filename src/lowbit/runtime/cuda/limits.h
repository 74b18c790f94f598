// What a GPU can do at best, measured: reading and multiplying.
#pragma once

#include <vector>

#include "lowbit/runtime/cuda/cuda_backend.h"

namespace lowbit::cuda {

// Reading first. The best of some runs of a few milliseconds each. Throws kDevice.
std::vector<CudaLimit> measure_limits();

}  // namespace lowbit::cuda

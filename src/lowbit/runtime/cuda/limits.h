// What a GPU can do at best, measured: reading and multiplying.
#pragma once

#include <vector>

#include "lowbit/runtime/cuda/cuda_backend.h"

namespace lowbit::cuda {

// How fast the device reads its memory, 4 GiB of it or half of what is free. Throws kDevice.
CudaLimit measure_memory_read();

// Reading first. The best of some runs of a few milliseconds each. Throws kDevice.
std::vector<CudaLimit> measure_limits();

}  // namespace lowbit::cuda

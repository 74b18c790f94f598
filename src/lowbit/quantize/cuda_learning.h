// Learning on the first GPU.
#pragma once

#include <memory>

#include "lowbit/quantize/learning.h"

namespace lowbit {

// Throws kUnsupported if this build has no CUDA, kDevice if there is no usable GPU.
std::unique_ptr<Learning> make_cuda_learning(ThreadPool& pool);

}  // namespace lowbit

// attention_tile for pages of codes: in another file, as compiling them takes a while.
#pragma once

#include "lowbit/runtime/cuda/kernels.h"

namespace lowbit::cuda {

void launch_tile_codes(const AttentionLaunch& a, cudaStream_t stream);

}  // namespace lowbit::cuda

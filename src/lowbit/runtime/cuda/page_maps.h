// Descriptions of the cache for bulk tensor copies.
#pragma once

#include <cuda.h>

#include "lowbit/runtime/cuda/kernels.h"

namespace lowbit::cuda {

// The cache of a layer, of halves, as matrices, [blocks * kv_heads * 64][head_dim], read in parts
// of 64 keys x 64 dimensions (zeros behind the last), swizzled as page_copies.cuh says.
struct PageMaps {
  CUtensorMap keys, values;
};
// Throws kDevice. Empty for devices before sm_90.
PageMaps page_maps(const AttentionLaunch& launch);

}  // namespace lowbit::cuda

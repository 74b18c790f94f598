#include "lowbit/runtime/cuda/attention_tile_sm90.cuh"
#include "lowbit/runtime/cuda/tile_launches.h"

namespace lowbit::cuda {

void launch_tile_codes(const AttentionLaunch& a, cudaStream_t stream) {
  switch (a.cache.type) {
    case CacheType::kE4M3:
      return launch_tile<CacheType::kE4M3>(a, stream);
    case CacheType::kInt8:
      return launch_tile<CacheType::kInt8>(a, stream);
    default:
      return launch_tile<CacheType::kInt4>(a, stream);
  }
}

}  // namespace lowbit::cuda

#include "lowbit/runtime/cuda/attention_few_sm90.cuh"
#include "lowbit/runtime/cuda/few_launches.h"

namespace lowbit::cuda {

void launch_few_int4(const AttentionLaunch& a, int64_t units, int processors, cudaStream_t stream) {
  launch_few<CacheType::kInt4>(a, units, processors, stream);
}

}  // namespace lowbit::cuda

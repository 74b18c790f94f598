// Attention of many queries of a sequence, by the warpgroup products of sm_90a. Computes to the bit
// what attention_few does (see attention.cuh): both kinds of products make the same sums.
//
// Work       A block of threads takes 128 rows (neighbouring queries x the query heads of a KV
// head)
//            and walks over their pages. One warp asks for keys and values, 64 x 64 at a time, by
//            bulk tensor copies (of codes: by bulk copies, and three more widen them); two
//            warpgroups multiply and soften 64 rows each. The scores of the next page are being
//            computed while values are summed, and sums of values while weights are.
#include "lowbit/runtime/cuda/attention_tile_sm90.cuh"
#include "lowbit/runtime/cuda/tile_launches.h"

namespace lowbit::cuda {

int tile_queries(const AttentionDims& dims) { return kBlockRows / (dims.heads / dims.kv_heads); }

void launch_attention_tile(const AttentionLaunch& a, cudaStream_t stream) {
  if (is_coded(a.cache.type)) return launch_tile_codes(a, stream);
  launch_tile<CacheType::kF16>(a, stream);
}

}  // namespace lowbit::cuda

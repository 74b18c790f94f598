// Attention of few queries of a sequence over many keys, by tensor cores: decoding, verifying
// guesses, short chunks. See attention.cuh for what is computed.
//
// Work       A unit is up to 16 rows (neighbouring queries x query heads of one KV head) and a span
//            of 256 keys. All units of the step, in order, are cut into as many runs as there are
//            blocks of threads, so that all finish together. One warp asks for pages of keys and
//            values, which come through a ring in shared memory; of two pages at a time each of
//            four others scores 16 keys, and sums a quarter of the values' dimensions.
// Merging    A block merges its spans as long as they begin with the sequence's first; what else it
//            has goes to the workspace, and the last block to finish a row merges that.
#include "lowbit/runtime/cuda/attention_few_sm90.cuh"
#include "lowbit/runtime/cuda/few_launches.h"

namespace lowbit::cuda {

namespace {

// spans: of all query blocks, were there no window.
int64_t few_units(const AttentionLaunch& a, int64_t spans) {
  if (a.dims.window > 0) spans = int64_t{a.block_count} * window_spans(a);
  return spans * head_pairs(a.dims);
}

}  // namespace

bool tensor_cores_fit(const AttentionDims& dims, CacheType type) {
  static const bool known = [] {
    int major = 0, minor = 0;
    LOWBIT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    LOWBIT_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    return major == 9 && minor == 0;
  }();
  return known && type != CacheType::kF32 && (dims.head_dim == 64 || dims.head_dim == 128) &&
         dims.heads / dims.kv_heads <= 128;
}

int few_queries(const AttentionDims& dims) { return kUnitRows / row_heads(dims); }

int64_t few_workspace(const AttentionLaunch& a, int64_t spans) {
  return few_units(a, spans) * unit_floats(a);
}

void launch_attention_few(const AttentionLaunch& a, int64_t spans, int processors,
                          cudaStream_t stream) {
  const int64_t units = few_units(a, spans);
  switch (a.cache.type) {
    case CacheType::kE4M3:
      return launch_few_fp8(a, units, processors, stream);
    case CacheType::kInt8:
      return launch_few_int8(a, units, processors, stream);
    case CacheType::kInt4:
      return launch_few_int4(a, units, processors, stream);
    default:
      return launch_few<CacheType::kF16>(a, units, processors, stream);
  }
}

}  // namespace lowbit::cuda

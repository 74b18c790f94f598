#include "lowbit/runtime/cuda/page_maps.h"

#include <utility>

#include "lowbit/runtime/cuda/device.h"
#include "lowbit/runtime/cuda/tensor_maps.h"

namespace lowbit::cuda {

PageMaps page_maps(const AttentionLaunch& a) {
  const auto encode = tensor_map_encoder();
  PageMaps maps = {};
  if (encode == nullptr) return maps;
  const cuuint64_t dim = static_cast<cuuint64_t>(a.dims.head_dim);
  const cuuint64_t keys =
      static_cast<cuuint64_t>(a.cache.blocks) * static_cast<cuuint64_t>(a.dims.kv_heads) * 64;
  const cuuint64_t sizes[] = {dim, keys}, strides[] = {dim * 2};
  const cuuint32_t box[] = {64, 64}, steps[] = {1, 1};
  for (const auto& [map, data] :
       {std::pair{&maps.keys, a.cache.keys}, {&maps.values, a.cache.values}}) {
    const CUresult status =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, data, sizes, strides, box, steps,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    check(status == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
  }
  return maps;
}

}  // namespace lowbit::cuda

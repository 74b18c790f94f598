#include "lowbit/runtime/cuda/tensor_maps.h"

#include <cuda_runtime_api.h>

#include "lowbit/runtime/cuda/device.h"

namespace lowbit::cuda {

PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder() {
  static const auto found = [] {
    int major = 0;
    LOWBIT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    void* function = nullptr;
    if (major >= 9) {
      cudaDriverEntryPointQueryResult result;
      LOWBIT_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                   cudaEnableDefault, &result));
      check(function == nullptr ? cudaErrorNotSupported : cudaSuccess, "cuTensorMapEncodeTiled");
    }
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return found;
}

CUtensorMap map_of_bytes(const void* data, int64_t rows, int64_t row_bytes, int box_rows,
                         int box_bytes) {
  constexpr int kElement = 8;  // boxes are at most 256 elements wide
  CUtensorMap map = {};
  const auto encode = tensor_map_encoder();
  if (encode == nullptr) return map;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(row_bytes / kElement),
                              static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(row_bytes)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(box_bytes / kElement),
                            static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT64, 2, const_cast<void*>(data), sizes, strides, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check(status == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
  return map;
}

}  // namespace lowbit::cuda

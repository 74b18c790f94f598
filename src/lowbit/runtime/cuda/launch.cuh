// Kernel launches that overlap with the end of the kernel before them (programmatic dependent
// launch, sm_90): a kernel starts with grid_start(), may then read what no kernel of the step
// writes (weights), and calls grid_wait() before anything else.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "lowbit/runtime/cuda/device.h"
#include "lowbit/runtime/cuda/launch_watch.h"

namespace lowbit::cuda {

__device__ inline void grid_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ inline void grid_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Whether the device knows programmatic dependent launch.
inline bool overlaps_launches() {
  static const bool known = [] {
    int major = 0;
    LOWBIT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    return major >= 9;
  }();
  return known;
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
            cudaStream_t stream, Arguments... arguments) {
  const auto* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > 48 * 1024) {
    LOWBIT_CUDA(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shared_bytes)));
  }
  // One division between shared memory and L1 for all: changing it empties a multiprocessor.
  LOWBIT_CUDA(cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout,
                                   cudaSharedmemCarveoutMaxShared));
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = overlaps_launches() ? 1 : 0;
  LaunchWatch watch(function, stream);
  LOWBIT_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
  watch.launched();
}

}  // namespace lowbit::cuda

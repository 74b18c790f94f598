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

inline void allow_shared(const void* kernel, size_t bytes) {
  if (bytes > 32 * 1024) {  // beside what a kernel declares itself, 48 KiB need no permission
    LOWBIT_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(bytes)));
  }
  // One division between shared memory and L1 for all: changing it empties a multiprocessor.
  LOWBIT_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                   cudaSharedmemCarveoutMaxShared));
}

inline cudaLaunchAttribute cluster_of(int blocks) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(blocks);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  return attribute;
}

// How many clusters of `cluster` blocks run at a time: fewer than there are multiprocessors for,
// because a cluster keeps to its part of the device.
template <typename... Parameters>
int most_clusters(void (*kernel)(Parameters...), int threads, size_t shared_bytes, int cluster) {
  const auto* function = reinterpret_cast<const void*>(kernel);
  allow_shared(function, shared_bytes);
  cudaLaunchAttribute attribute = cluster_of(cluster);
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(cluster));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int count = 0;
  LOWBIT_CUDA(cudaOccupancyMaxActiveClusters(&count, function, &config));
  return count < 1 ? 1 : count;
}

// A kernel whose blocks form clusters of `cluster`.
template <typename... Parameters, typename... Arguments>
void launch_cluster(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
                    int cluster, cudaStream_t stream, Arguments... arguments) {
  const auto* function = reinterpret_cast<const void*>(kernel);
  allow_shared(function, shared_bytes);
  cudaLaunchAttribute attributes[2];
  int count = 0;
  if (overlaps_launches()) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) attributes[count++] = cluster_of(cluster);
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = static_cast<unsigned>(count);
  LaunchWatch watch(function, stream);
  LOWBIT_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
  watch.launched();
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
            cudaStream_t stream, Arguments... arguments) {
  launch_cluster(kernel, grid, threads, shared_bytes, 1, stream, arguments...);
}

}  // namespace lowbit::cuda

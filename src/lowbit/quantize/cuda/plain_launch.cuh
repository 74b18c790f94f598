// Launches that wait for the kernel before them to be over, unlike those of the backend's steps.
#pragma once

#include "lowbit/runtime/cuda/launch.cuh"

namespace lowbit::cuda {

template <typename... Parameters, typename... Arguments>
void launch_plain(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
                  cudaStream_t stream, Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0) return;
  const auto* function = reinterpret_cast<const void*>(kernel);
  allow_shared(function, shared_bytes);
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  LaunchWatch watch(function, stream);
  LOWBIT_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
  watch.launched();
}

// Enough blocks for a thread each.
inline dim3 blocks_of(int64_t count, int threads) {
  return dim3(static_cast<unsigned>((count + threads - 1) / threads));
}

}  // namespace lowbit::cuda

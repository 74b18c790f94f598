// Kernels that do one thing as fast as the device can: fp32 multiply-adds, tensor core products of
// 16-bit inputs by mma.sync, and on sm_90a products of 16 and 8 bits by wgmma from shared memory.
// Operands are pseudorandom: a device multiplies zeros faster than it could multiply anything else.
#include <cuda_runtime.h>

#include <algorithm>
#include <functional>

#include "lowbit/runtime/cuda/device.h"
#include "lowbit/runtime/cuda/kernels.h"
#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/limits.h"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = 512;
constexpr int kReadings = 8;

__device__ uint32_t noise(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// 16 chains a thread.
__global__ void __launch_bounds__(kThreads) multiply_add_fp32(int rounds, float* out) {
  float sums[16];
  for (int i = 0; i < 16; ++i) sums[i] = static_cast<float>(threadIdx.x + i);
  const float factor = 1.f - 1e-6f * static_cast<float>(threadIdx.x % 7);
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int i = 0; i < 16; ++i) sums[i] = fmaf(sums[i], factor, 0.5f);
  }
  float sum = 0;
  for (const float value : sums) sum += value;
  if (sum == 12345.f) *out = sum;  // never; keeps the loop
}
constexpr double kFp32Operations = 2.0 * 16 * kThreads;  // of a block in a round

// Four chains a warp.
__global__ void __launch_bounds__(kThreads) multiply_mma(int rounds, float* out) {
  float sums[4][4] = {};
  uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) a[i] = noise(threadIdx.x * 8 + i) & 0xbf7fbf7fu;
  for (int i = 0; i < 2; ++i) b[i] = noise(threadIdx.x * 8 + 4 + i) & 0xbf7fbf7fu;
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (auto& c : sums) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
          "{%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }
  if (sums[0][0] + sums[1][1] + sums[2][2] + sums[3][3] == 12345.f) *out = sums[0][0];
}
constexpr double kMmaOperations = 2.0 * 16 * 8 * 16 * 4 * (kThreads / 32);

#define LOWBIT_SUMS(X)                                                                            \
  X(sums[0]), X(sums[1]), X(sums[2]), X(sums[3]), X(sums[4]), X(sums[5]), X(sums[6]), X(sums[7]), \
      X(sums[8]), X(sums[9]), X(sums[10]), X(sums[11]), X(sums[12]), X(sums[13]), X(sums[14]),    \
      X(sums[15]), X(sums[16]), X(sums[17]), X(sums[18]), X(sums[19]), X(sums[20]), X(sums[21]),  \
      X(sums[22]), X(sums[23]), X(sums[24]), X(sums[25]), X(sums[26]), X(sums[27]), X(sums[28]),  \
      X(sums[29]), X(sums[30]), X(sums[31]), X(sums[32]), X(sums[33]), X(sums[34]), X(sums[35]),  \
      X(sums[36]), X(sums[37]), X(sums[38]), X(sums[39]), X(sums[40]), X(sums[41]), X(sums[42]),  \
      X(sums[43]), X(sums[44]), X(sums[45]), X(sums[46]), X(sums[47]), X(sums[48]), X(sums[49]),  \
      X(sums[50]), X(sums[51]), X(sums[52]), X(sums[53]), X(sums[54]), X(sums[55]), X(sums[56]),  \
      X(sums[57]), X(sums[58]), X(sums[59]), X(sums[60]), X(sums[61]), X(sums[62]), X(sums[63])
#define LOWBIT_FLOAT(x) "+f"(x)
#define LOWBIT_WORD(x) "+r"(x)
#define LOWBIT_WGMMA(type, inputs, constraint)                                                     \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128" type                                         \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "  \
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "  \
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
               "%64, %65, 1" inputs ";"                                                            \
               : LOWBIT_SUMS(constraint)                                                           \
               : "l"(a), "l"(b))

enum class Inputs { kBf16, kE4M3, kInt8 };

// A warpgroup has 64 rows x 128 columns of sums; all multiply the same two matrices.
template <Inputs kInputs>
__global__ void __launch_bounds__(kThreads) multiply_wgmma(int rounds, float* out) {
#if __CUDA_ARCH__ >= 900 && defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ __align__(128) uint32_t matrices[(64 + 128) * 32 / 4];
  for (int i = static_cast<int>(threadIdx.x); i < (64 + 128) * 32 / 4; i += kThreads) {
    matrices[i] = noise(static_cast<uint32_t>(i)) & 0xbf7fbf7fu;
  }
  asm volatile("fence.proxy.async;" ::: "memory");
  __syncthreads();
  // Without swizzle: 8 rows of 16 bytes are 128 bytes, the next 16 bytes of them follow.
  const auto describe = [&](int byte) {
    const auto address = static_cast<uint64_t>(__cvta_generic_to_shared(matrices)) + byte;
    return (address & 0x3ffff) >> 4 | uint64_t{128 >> 4} << 16 | uint64_t{256 >> 4} << 32;
  };
  const uint64_t a = describe(0), b = describe(64 * 32);
  using Sum = std::conditional_t<kInputs == Inputs::kInt8, int, float>;
  Sum sums[64] = {};
  for (int round = 0; round < rounds; ++round) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if constexpr (kInputs == Inputs::kBf16) {
        LOWBIT_WGMMA("k16.f32.bf16.bf16", ", 1, 1, 0, 0", LOWBIT_FLOAT);
      } else if constexpr (kInputs == Inputs::kE4M3) {
        LOWBIT_WGMMA("k32.f32.e4m3.e4m3", ", 1, 1", LOWBIT_FLOAT);
      } else {
        LOWBIT_WGMMA("k32.s32.s8.s8", "", LOWBIT_WORD);
      }
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
  if (sums[0] + sums[33] == Sum{12345}) *out = static_cast<float>(sums[0]);
#endif
}
constexpr double kWgmmaOperations = 2.0 * 64 * 128 * 16 * 8 * (kThreads / 128);

// The fastest of some runs, seconds.
double fastest(const std::function<void()>& run) {
  cudaEvent_t start = nullptr, stop = nullptr;
  LOWBIT_CUDA(cudaEventCreate(&start));
  LOWBIT_CUDA(cudaEventCreate(&stop));
  float best = 0;
  for (int i = 0; i < kReadings; ++i) {
    LOWBIT_CUDA(cudaEventRecord(start));
    run();
    LOWBIT_CUDA(cudaEventRecord(stop));
    LOWBIT_CUDA(cudaEventSynchronize(stop));
    float milliseconds = 0;
    LOWBIT_CUDA(cudaEventElapsedTime(&milliseconds, start, stop));
    if (i > 0 && (best == 0 || milliseconds < best)) best = milliseconds;
  }
  LOWBIT_CUDA(cudaEventDestroy(start));
  LOWBIT_CUDA(cudaEventDestroy(stop));
  return best * 1e-3;
}

CudaLimit measure_read(const char* name, size_t bytes, int passes, int processors) {
  const auto data = allocate(bytes, "the read test");
  LOWBIT_CUDA(cudaMemset(data.get(), 0x5a, bytes));
  const auto sums = allocate(size_t{8} * 4096, "sums");
  const double seconds = fastest([&] {
    for (int i = 0; i < passes; ++i) {
      launch_read(data.get(), static_cast<int64_t>(bytes), static_cast<uint32_t*>(sums.get()),
                  processors, nullptr);
    }
  });
  return {name, static_cast<int64_t>(bytes), static_cast<double>(bytes) * passes / seconds / 1e9};
}

cudaDeviceProp device_properties() {
  cudaDeviceProp properties;
  LOWBIT_CUDA(cudaGetDeviceProperties(&properties, 0));
  return properties;
}

}  // namespace

CudaLimit measure_memory_read() {
  size_t free_bytes = 0, total_bytes = 0;
  LOWBIT_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  return measure_read("device memory", std::min(size_t{4} << 30, free_bytes / 2), 1,
                      device_properties().multiProcessorCount);
}

std::vector<CudaLimit> measure_limits() {
  const cudaDeviceProp properties = device_properties();
  const int processors = properties.multiProcessorCount;
  const size_t cache = static_cast<size_t>(properties.l2CacheSize) / 4;
  std::vector<CudaLimit> limits = {measure_memory_read(),
                                   measure_read("L2", cache, 64, processors)};

  const auto never = allocate(sizeof(float), "a result that nobody reads");
  const auto add = [&](const char* name, void (*kernel)(int, float*), int rounds, double operations,
                       int blocks_each) {
    const int blocks = processors * blocks_each;
    const double seconds = fastest([&] {
      kernel<<<blocks, kThreads>>>(rounds, static_cast<float*>(never.get()));
      LOWBIT_CUDA(cudaGetLastError());
    });
    limits.push_back({name, 0, operations * rounds * blocks / seconds / 1e9});
  };
  add("fp32 FMA", multiply_add_fp32, 20000, kFp32Operations, 4);
  add("bf16 mma.sync", multiply_mma, 20000, kMmaOperations, 2);
  if (has_wgmma()) {
    add("bf16 wgmma", multiply_wgmma<Inputs::kBf16>, 4000, kWgmmaOperations, 1);
    add("e4m3 wgmma", multiply_wgmma<Inputs::kE4M3>, 4000, 2 * kWgmmaOperations, 1);
    add("int8 wgmma", multiply_wgmma<Inputs::kInt8>, 4000, 2 * kWgmmaOperations, 1);
  }
  return limits;
}

}  // namespace lowbit::cuda

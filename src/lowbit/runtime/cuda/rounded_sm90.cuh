// wgmma of 8-bit inputs and of halves with weights in registers, for linear_rounded_sm90. For
// sm_90a alone.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cuda/hopper.cuh"

namespace lowbit::cuda {

enum class Product : int { kInt8, kE4M3, kF16 };

// Rows of 128 bytes, their 16-byte parts exchanged by row % 8; eight rows are a KiB.
__device__ inline uint64_t byte_matrix(const void* shared) {
  constexpr uint64_t kEightRows = 1024 >> 4, kSwizzle128 = uint64_t{1} << 62;
  return (shared_address(shared) >> 4 & 0x3fff) | uint64_t{1} << 16 | kEightRows << 32 |
         kSwizzle128;
}

// add() adds a * b to sums: 64 rows x 32 bytes of weights, in the registers of four warps as
// m16n8k32 (m16n8k16 for halves) wants them of each, times 32 bytes of kColumns inputs.
template <Product kProduct, int kColumns>
struct Wide;

#define LOWBIT_NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define LOWBIT_NAMES_32                      \
  LOWBIT_NAMES_8                             \
  ", "                                       \
  "%8, %9, %10, %11, %12, %13, %14, %15, "   \
  "%16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define LOWBIT_NAMES_64                      \
  LOWBIT_NAMES_32                            \
  ", "                                       \
  "%32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63"
#define LOWBIT_NAMES_128                             \
  LOWBIT_NAMES_64                                    \
  ", "                                               \
  "%64, %65, %66, %67, %68, %69, %70, %71, "         \
  "%72, %73, %74, %75, %76, %77, %78, %79, "         \
  "%80, %81, %82, %83, %84, %85, %86, %87, "         \
  "%88, %89, %90, %91, %92, %93, %94, %95, "         \
  "%96, %97, %98, %99, %100, %101, %102, %103, "     \
  "%104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, " \
  "%120, %121, %122, %123, %124, %125, %126, %127"
#define LOWBIT_SUMS_4(C, i) C(s[i]), C(s[i + 1]), C(s[i + 2]), C(s[i + 3])
#define LOWBIT_SUMS_8(C, i) LOWBIT_SUMS_4(C, i), LOWBIT_SUMS_4(C, i + 4)
#define LOWBIT_SUMS_32(C, i) \
  LOWBIT_SUMS_8(C, i), LOWBIT_SUMS_8(C, i + 8), LOWBIT_SUMS_8(C, i + 16), LOWBIT_SUMS_8(C, i + 24)
#define LOWBIT_SUMS_64(C, i) LOWBIT_SUMS_32(C, i), LOWBIT_SUMS_32(C, i + 32)
#define LOWBIT_SUMS_128(C, i) LOWBIT_SUMS_64(C, i), LOWBIT_SUMS_64(C, i + 64)

// INPUTS: names of the operands behind the sums. TAIL: signs and order, which integers lack.
#define LOWBIT_WIDE(PRODUCT, SUM, C, COLUMNS, COUNT, TYPE, A, B, ADD, TAIL)                    \
  template <>                                                                                  \
  struct Wide<PRODUCT, COLUMNS> {                                                              \
    static __device__ void multiply(SUM (&s)[COUNT], const uint32_t (&a)[4], uint64_t b,       \
                                    bool add) {                                                \
      asm volatile("{.reg .pred add;\nsetp.ne.b32 add, " ADD                                   \
                   ", 0;\n"                                                                    \
                   "wgmma.mma_async.sync.aligned.m64n" #COLUMNS TYPE " {" LOWBIT_NAMES_##COUNT \
                   "}, {" A "}, " B ", add" TAIL ";}"                                          \
                   : LOWBIT_SUMS_##COUNT(C, 0)                                                 \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),                       \
                     "r"(static_cast<int>(add)));                                              \
    }                                                                                          \
  };
#define LOWBIT_WIDE_ALL(COLUMNS, COUNT, A, B, ADD)                                           \
  LOWBIT_WIDE(Product::kInt8, int32_t, "+r", COLUMNS, COUNT, "k32.s32.s8.s8", A, B, ADD, "") \
  LOWBIT_WIDE(Product::kE4M3, float, "+f", COLUMNS, COUNT, "k32.f32.e4m3.e4m3", A, B, ADD,   \
              ", 1, 1")                                                                      \
  LOWBIT_WIDE(Product::kF16, float, "+f", COLUMNS, COUNT, "k16.f32.f16.f16", A, B, ADD, ", 1, 1, 0")
LOWBIT_WIDE_ALL(16, 8, "%8, %9, %10, %11", "%12", "%13")
LOWBIT_WIDE_ALL(64, 32, "%32, %33, %34, %35", "%36", "%37")
LOWBIT_WIDE_ALL(128, 64, "%64, %65, %66, %67", "%68", "%69")
LOWBIT_WIDE_ALL(256, 128, "%128, %129, %130, %131", "%132", "%133")

#undef LOWBIT_WIDE_ALL
#undef LOWBIT_WIDE
#undef LOWBIT_SUMS_128
#undef LOWBIT_SUMS_64
#undef LOWBIT_SUMS_32
#undef LOWBIT_SUMS_8
#undef LOWBIT_SUMS_4
#undef LOWBIT_NAMES_128
#undef LOWBIT_NAMES_64
#undef LOWBIT_NAMES_32
#undef LOWBIT_NAMES_8

__device__ inline void prefetch_map(const void* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// The box of a matrix of bytes whose first row and column (in elements of 8 bytes) these are.
__device__ inline void copy_box(void* shared, const void* map, int column, int row,
                                uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(shared)),
      "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier))
      : "memory");
}

// What this thread knows to be written is seen by those who see the flag.
__device__ inline void raise_flag(int32_t* flag) {
  asm volatile("st.release.gpu.global.s32 [%0], 1;" ::"l"(flag) : "memory");
}
__device__ inline void await_flag(const int32_t* flag) {
  int32_t value;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  } while (value == 0);
}
__device__ inline uint4 load_uncached(const void* global) {
  return __ldcg(reinterpret_cast<const uint4*>(global));
}

}  // namespace lowbit::cuda

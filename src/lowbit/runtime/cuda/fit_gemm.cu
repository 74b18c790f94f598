// Products by mma.sync.m16n8k8 of TF32: tiles of 128 x 128 by 8 warps, three stages of 32 deep
// slices copied asynchronously. A slice lies in shared memory the way its matrix lies in memory, so
// that transposed operands need no kernel of their own.
#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/runtime/cuda/device.h"
#include "lowbit/runtime/cuda/fit_gemm.h"

namespace lowbit::cuda {

namespace {

constexpr int kTile = 128, kDepth = 32, kStages = 3, kThreads = 256;
// Strides of a slice in shared memory that keep the lanes of a fragment in different banks.
constexpr int kDeepStride = kDepth + 4;  // [tile][depth]
constexpr int kWideStride = kTile + 8;   // [depth][tile]
constexpr int kSlice = kTile * kDeepStride;
static_assert(kSlice >= kDepth * kWideStride);
constexpr size_t kSharedBytes = size_t{2} * kStages * kSlice * sizeof(float);

// One operand: element (row of the tile's dimension, depth).
struct Operand {
  const float* data;
  int64_t stride;  // of the dimension that is not contiguous
  int64_t rows;
};

struct Problem {
  Operand a, b;
  int64_t depth;
  float* c;
  int64_t c_stride;
  bool add;
  GemmBatch batch;
};

__device__ int64_t offset_of(const GemmOffsets& offsets, int64_t sequence, int64_t head) {
  return sequence * offsets.sequence + head / offsets.heads_sharing * offsets.head;
}

template <int kBytes>
__device__ void copy_async(float* to, const float* from, int valid_bytes) {
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from),
                 "r"(valid_bytes));
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(from),
                 "r"(valid_bytes));
  }
}

// Copies the slice [first_row, +kTile) x [first_depth, +kDepth), zeros beyond the matrix. kDeep:
// the depth is contiguous; kWidth: elements a copy.
template <bool kDeep, int kWidth>
__device__ void load_slice(const Operand& x, int64_t depth, int64_t first_row, int64_t first_depth,
                           float* out) {
  constexpr int kInner = (kDeep ? kDepth : kTile) / kWidth;
  constexpr int kOuter = kDeep ? kTile : kDepth;
  const int64_t inner_first = kDeep ? first_depth : first_row, inner_end = kDeep ? depth : x.rows,
                outer_first = kDeep ? first_row : first_depth, outer_end = kDeep ? x.rows : depth;
#pragma unroll
  for (int at = static_cast<int>(threadIdx.x); at < kInner * kOuter; at += kThreads) {
    const int outer = at / kInner, inner = at % kInner * kWidth;
    const int64_t left = inner_end - inner_first - inner;
    const bool inside = outer_first + outer < outer_end && left > 0;
    const float* from =
        inside ? x.data + (outer_first + outer) * x.stride + inner_first + inner : x.data;
    const int valid = inside ? static_cast<int>(left < kWidth ? left : kWidth) * 4 : 0;
    copy_async<kWidth * 4>(out + outer * (kDeep ? kDeepStride : kWideStride) + inner, from, valid);
  }
}

template <bool kDeep>
__device__ unsigned element(const float* slice, int row, int depth) {
  const float value = kDeep ? slice[row * kDeepStride + depth] : slice[depth * kWideStride + row];
  unsigned rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
  return rounded;
}

__device__ void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A warp has 64 x 32 of the tile.
template <bool kDeepA, bool kDeepB>
__device__ void multiply_slice(const float* a, const float* b, float (&sums)[4][4][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int row = warp / 4 * 64 + lane / 4, column = warp % 4 * 32 + lane / 4, step = lane % 4;
#pragma unroll
  for (int depth = 0; depth < kDepth; depth += 8) {
    unsigned left[4][4], right[4][2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      left[i][0] = element<kDeepA>(a, row + 16 * i, depth + step);
      left[i][1] = element<kDeepA>(a, row + 16 * i + 8, depth + step);
      left[i][2] = element<kDeepA>(a, row + 16 * i, depth + step + 4);
      left[i][3] = element<kDeepA>(a, row + 16 * i + 8, depth + step + 4);
      right[i][0] = element<kDeepB>(b, column + 8 * i, depth + step);
      right[i][1] = element<kDeepB>(b, column + 8 * i, depth + step + 4);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) multiply_add(sums[i][j], left[i], right[j]);
    }
  }
}

__device__ void store(const Problem& p, float* c, int64_t row, int64_t column, float value) {
  if (row >= p.a.rows || column >= p.b.rows) return;
  float& out = c[row * p.c_stride + column];
  out = p.add ? out + value : value;
}

template <bool kDeepA, bool kDeepB, int kWidth>
__global__ void __launch_bounds__(kThreads, 2) multiply_kernel(Problem p) {
  extern __shared__ __align__(16) float shared[];
  const int64_t sequence = blockIdx.z / p.batch.heads, head = blockIdx.z % p.batch.heads;
  p.a.data += offset_of(p.batch.a, sequence, head);
  p.b.data += offset_of(p.batch.b, sequence, head);
  float* c = p.c + offset_of(p.batch.c, sequence, head);
  const int64_t first_row = int64_t{blockIdx.x} * kTile, first_column = int64_t{blockIdx.y} * kTile;
  const auto load = [&](int64_t slice) {
    float* to = shared + slice % kStages * 2 * kSlice;
    if (slice * kDepth < p.depth) {
      load_slice<kDeepA, kWidth>(p.a, p.depth, first_row, slice * kDepth, to);
      load_slice<kDeepB, kWidth>(p.b, p.depth, first_column, slice * kDepth, to + kSlice);
    }
    asm volatile("cp.async.commit_group;");
  };
  float sums[4][4][4] = {};
  const int64_t slices = (p.depth + kDepth - 1) / kDepth;
  for (int i = 0; i < kStages - 1; ++i) load(i);
  for (int64_t slice = 0; slice < slices; ++slice) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2));
    __syncthreads();
    load(slice + kStages - 1);
    const float* from = shared + slice % kStages * 2 * kSlice;
    multiply_slice<kDeepA, kDeepB>(from, from + kSlice, sums);
  }
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t row = first_row + warp / 4 * 64 + 16 * i + lane / 4,
                    column = first_column + warp % 4 * 32 + 8 * j + lane % 4 * 2;
      store(p, c, row, column, sums[i][j][0]);
      store(p, c, row, column + 1, sums[i][j][1]);
      store(p, c, row + 8, column, sums[i][j][2]);
      store(p, c, row + 8, column + 1, sums[i][j][3]);
    }
  }
}

using Kernel = void (*)(Problem);

template <int kWidth>
Kernel kernel_of(bool deep_a, bool deep_b) {
  if (deep_a)
    return deep_b ? multiply_kernel<true, true, kWidth> : multiply_kernel<true, false, kWidth>;
  return deep_b ? multiply_kernel<false, true, kWidth> : multiply_kernel<false, false, kWidth>;
}

bool in_fours(const Operand& x, const GemmOffsets& offsets) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride % 4 == 0 &&
         offsets.sequence % 4 == 0 && offsets.head % 4 == 0;
}

}  // namespace

void multiply(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c,
              int64_t c_stride, bool add, const GemmBatch& batch, cudaStream_t stream) {
  const bool deep_a = a.column_stride == 1, deep_b = b.row_stride == 1;
  LOWBIT_CHECK((deep_a || a.row_stride == 1) && (deep_b || b.column_stride == 1),
               "a product of matrices without a contiguous dimension");
  const Problem problem = {{a.data, deep_a ? a.row_stride : a.column_stride, m},
                           {b.data, deep_b ? b.column_stride : b.row_stride, n},
                           k,
                           c,
                           c_stride,
                           add,
                           batch};
  const bool wide = in_fours(problem.a, batch.a) && in_fours(problem.b, batch.b);
  const Kernel kernel = wide ? kernel_of<4>(deep_a, deep_b) : kernel_of<1>(deep_a, deep_b);
  const auto* function = reinterpret_cast<const void*>(kernel);
  LOWBIT_CUDA(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(kSharedBytes)));
  const dim3 grid(static_cast<unsigned>((m + kTile - 1) / kTile),
                  static_cast<unsigned>((n + kTile - 1) / kTile),
                  static_cast<unsigned>(batch.sequences * batch.heads));
  kernel<<<grid, kThreads, kSharedBytes, stream>>>(problem);
  LOWBIT_CUDA(cudaGetLastError());
}

}  // namespace lowbit::cuda

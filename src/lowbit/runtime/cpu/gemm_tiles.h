// One register tile of an fp32 matrix product (gemm.h), per instruction set.
//   c[rows][columns] = sum over k of a[k][rows] * b[k][columns], added to c if `accumulate`
// a and b are packed, on 64-byte boundaries; c has rows of c_stride.
#pragma once

#include <cstdint>

#include "lowbit/runtime/matrix_view.h"

namespace lowbit::cpu {

using GemmTile = void (*)(int64_t k, const float* a, const float* b, float* c, int64_t c_stride,
                          bool accumulate);
// Packs `count` rows of `view` from `first` on, `depth` columns of each, as one panel of a tile's
// rows (a) or columns (b); zeros for what is missing to the kernel's rows, columns and depth_unit.
using GemmPack = void (*)(MatrixView view, int64_t first, int64_t count, int64_t depth, float* out);

struct GemmKernel {
  const char* isa;
  int64_t rows;
  int64_t columns;
  GemmTile tile;
  // A kernel that wants its panels in another form than [k][rows] and [k][columns], of 4 bytes an
  // element all the same, packs them itself. k is rounded up to a multiple of depth_unit.
  GemmPack pack_a = nullptr;
  GemmPack pack_b = nullptr;
  int64_t depth_unit = 1;
};

// gemm.cpp: 4 x 8
void plain_gemm_tile(int64_t k, const float* a, const float* b, float* c, int64_t c_stride,
                     bool accumulate);
namespace avx2 {  // kernels_avx2_gemm.cpp: 6 x 16
void gemm_tile(int64_t k, const float* a, const float* b, float* c, int64_t c_stride,
               bool accumulate);
}
namespace avx512 {  // kernels_avx512_gemm.cpp: 14 x 32
void gemm_tile(int64_t k, const float* a, const float* b, float* c, int64_t c_stride,
               bool accumulate);
}
namespace amx {  // kernels_amx_gemm.cpp: 32 x 32
void gemm_tile(int64_t k, const float* a, const float* b, float* c, int64_t c_stride,
               bool accumulate);
void pack_a(MatrixView view, int64_t first, int64_t count, int64_t depth, float* out);
void pack_b(MatrixView view, int64_t first, int64_t count, int64_t depth, float* out);
}  // namespace amx

}  // namespace lowbit::cpu

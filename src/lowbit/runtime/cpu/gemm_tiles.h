// One register tile of an fp32 matrix product (gemm.h), per instruction set.
//   c[rows][columns] = sum over k of a[k][rows] * b[k][columns], added to c if `accumulate`
// a and b are packed, b on a 64-byte boundary; c has rows of c_stride.
#pragma once

#include <cstdint>

namespace lowbit::cpu {

using GemmTile = void (*)(int64_t k, const float* a, const float* b, float* c, int64_t c_stride,
                          bool accumulate);

struct GemmKernel {
  const char* isa;
  int64_t rows;
  int64_t columns;
  GemmTile tile;
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

}  // namespace lowbit::cpu

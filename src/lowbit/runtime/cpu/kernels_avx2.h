// The AVX2 kernels, by file.
#pragma once

#include "lowbit/runtime/cpu/kernels.h"

namespace lowbit::cpu::avx2 {

// kernels_avx2_linear.cpp
void linear_f32(const PackedMatrix& w, const float* x, int64_t x_stride, Range tiles, Range tokens,
                float* y, int64_t y_stride);
void unpack_tile(const PackedMatrix& w, int64_t tile, float* out);
// kernels_avx2_vector.cpp: linear_f32 for one token. x: [cols]  y: [rows]
void vector_product(const PackedMatrix& w, const float* x, Range tiles, float* y);
// kernels_avx2_int8.cpp
void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride);
void quantize_input(const float* x, int64_t cols, int64_t token, const QuantizedInput& out);
// kernels_avx2_attention.cpp
void attention(const AttentionTask& task);
int64_t attention_scratch(int64_t queries, int64_t heads, int64_t head_dim);

}  // namespace lowbit::cpu::avx2

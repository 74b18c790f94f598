// The AVX-512, AVX-VNNI and AMX kernels, by file. What is not here is AVX2's.
#pragma once

#include "lowbit/runtime/cpu/kernels.h"

namespace lowbit::cpu {

namespace avx512 {
// kernels_avx512.cpp
void silu_mul(const float* gate, const float* up, int64_t count, float* out);
// kernels_avx512_int8.cpp
void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride);
// kernels_avx512_input.cpp
void quantize_input(const float* x, int64_t cols, int64_t token, const QuantizedInput& out);
// kernels_avx512_attention.cpp
void attention(const AttentionTask& task);
}  // namespace avx512

namespace avxvnni {
// kernels_avxvnni_int8.cpp
void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride);
}  // namespace avxvnni

namespace amx {
// kernels_amx_int8.cpp
void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride);
void arrange_input(int64_t tile, const QuantizedInput& x);
// kernels_amx_attention.cpp; needs bf16
void attention(const AttentionTask& task);
int64_t attention_scratch(int64_t queries, int64_t heads, int64_t head_dim);
}  // namespace amx

}  // namespace lowbit::cpu

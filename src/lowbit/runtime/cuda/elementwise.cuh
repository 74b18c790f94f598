// Arithmetic between the products, for kernels of its own and for attention, which rotates on the
// way: all make the same bits.
#pragma once

#include <cstdint>

namespace lowbit::cuda {

// Threads that normalize a token: thread t takes the quads of columns t, t + kNormThreads, ...
constexpr int kNormThreads = 512;

__device__ inline float sum_of_warp(float value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// The sum over a block of threads, in every thread. warps: a float for each warp, not in use.
__device__ inline float sum_of_block(float value, float* warps) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  value = sum_of_warp(value);
  if (lane == 0) warps[warp] = value;
  __syncthreads();
  return sum_of_warp(lane < static_cast<int>(blockDim.x) / 32 ? warps[lane] : 0.f);
}

__device__ inline float add_squares(const float4& v, float sum) {
  return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
}

__device__ inline float rms_scale(float squares, int cols, float eps) {
  return 1.f / sqrtf(__fdiv_rn(squares, static_cast<float>(cols)) + eps);
}

__device__ inline float4 normalize(const float4& v, float scale, const float4& weight) {
  // __fmul_rn: what follows must not take the product in unrounded.
  return make_float4(__fmul_rn(v.x * scale, weight.x), __fmul_rn(v.y * scale, weight.y),
                     __fmul_rn(v.z * scale, weight.z), __fmul_rn(v.w * scale, weight.w));
}

__device__ inline float4 add(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// The pair (i, i + head_dim / 2) of a head, rotated.
__device__ inline float2 rotate(float a, float b, float cos, float sin) {
  return make_float2(fmaf(a, cos, -__fmul_rn(b, sin)), fmaf(b, cos, __fmul_rn(a, sin)));
}

__device__ inline float silu_mul(float gate, float up) {
  return __fmul_rn(gate / (1.f + expf(-gate)), up);
}

// The quad of columns k .. k + 3 of a row; zeros behind its end.
__device__ inline float4 load_quad(const float* row, int cols, int k) {
  if (cols % 4 == 0) return *reinterpret_cast<const float4*>(row + k);
  return make_float4(row[k], k + 1 < cols ? row[k + 1] : 0.f, k + 2 < cols ? row[k + 2] : 0.f,
                     k + 3 < cols ? row[k + 3] : 0.f);
}
__device__ inline void store_quad(float* row, int cols, int k, const float4& v) {
  if (cols % 4 == 0) {
    *reinterpret_cast<float4*>(row + k) = v;
    return;
  }
  const float values[4] = {v.x, v.y, v.z, v.w};
  for (int i = 0; i < 4 && k + i < cols; ++i) row[k + i] = values[i];
}

}  // namespace lowbit::cuda

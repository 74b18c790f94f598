// Inputs rounded to 8 bits or less, token by token (tensor/input_codes.h), in the order in which
// wgmma reads them, or as floats for kernels that know nothing of it.
#include <algorithm>

#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/mma.cuh"
#include "lowbit/runtime/cuda/rounded.h"
#include "lowbit/tensor/codebook.h"

namespace lowbit::cuda {

namespace {

constexpr int kMostThreads = 512;
constexpr int kHeld = 8;  // quads of inputs that a thread keeps from the search for the largest
constexpr int kUnitQuads = kUnitCols / 4;
constexpr uint32_t kInfinity = 0x7f800000u;

__device__ uint32_t magnitude(float value) { return __float_as_uint(value) & 0x7fffffffu; }

// The largest of a block of threads, in every thread. warps: a word for each warp, not in use.
__device__ uint32_t largest_bits(uint32_t value, uint32_t* warps) {
  const int thread = static_cast<int>(threadIdx.x), count = static_cast<int>(blockDim.x) / 32;
  value = __reduce_max_sync(0xffffffffu, value);
  if (thread % 32 == 0) warps[thread / 32] = value;
  __syncthreads();
  return __reduce_max_sync(0xffffffffu, warps[thread % 32 % count]);
}

// Four inputs; those of outliers, and behind the last, are 0.
__device__ float4 load_quad(const PackedMatrix& m, const float* x, const OutlierView& outliers,
                            int quad) {
  float4 v = load_inputs(m, x, 4 * quad);
  if (outliers.count == 0) return v;
  const uint32_t apart = outliers.bits[quad / 8] >> quad % 8 * 4;
  if (apart & 1) v.x = 0;
  if (apart & 2) v.y = 0;
  if (apart & 4) v.z = 0;
  if (apart & 8) v.w = 0;
  return v;
}

__device__ uint32_t largest_of_quad(const float4& v) {
  return max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w)));
}

// What round_inputs makes of the largest magnitude of a token.
struct TokenScale {
  float scale, inverse;
  __device__ TokenScale(uint32_t most_bits, float limit) {
    const float most = __uint_as_float(most_bits);
    if (most_bits >= kInfinity) {
      scale = __uint_as_float(0x7fc00000u), inverse = 0;
    } else if (most > 1e-30f) {
      scale = most / limit, inverse = limit / most;
    } else {
      scale = inverse = 0;
    }
  }
};

__device__ int round_int(float value, float inverse) {
  return inverse == 0 ? 0 : __float2int_rn(__fmul_rn(value, inverse));
}
#if __CUDA_ARCH__ >= 890
__device__ uint32_t pack_e4m3(float low, float high) {
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
}
#else
// To the nearest, halves to even; the largest for what is larger.
__device__ uint32_t to_e4m3(float value) {
  const uint32_t sign = __float_as_uint(value) >> 24 & 0x80u, bits = magnitude(value);
  if (bits >= __float_as_uint(448.f)) return sign | 0x7eu;
  if (bits < __float_as_uint(0x1p-6f)) {
    return sign | static_cast<uint32_t>(__float2int_rn(__uint_as_float(bits) * 512));
  }
  constexpr uint32_t kBias = 120u << 3;  // between the exponents
  return sign | (((bits + 0x7ffffu + (bits >> 20 & 1u)) >> 20) - kBias);
}
__device__ uint32_t pack_e4m3(float low, float high) { return to_e4m3(low) | to_e4m3(high) << 8; }
#endif

// Four codes. 4-bit weights come two steps of 16 columns at a time: a first word holds inputs 0 and
// 1 of both steps in turn, a second one inputs 2 and 3. Neighbouring lanes have neighbouring quads.
template <Rounding kRounding>
__device__ uint32_t round_quad(const float4& v, float inverse) {
  if constexpr (kRounding == Rounding::kE4M3) {
    if (inverse == 0) return 0;
    return pack_e4m3(__fmul_rn(v.x, inverse), __fmul_rn(v.y, inverse)) |
           pack_e4m3(__fmul_rn(v.z, inverse), __fmul_rn(v.w, inverse)) << 16;
  } else {
    const int x = round_int(v.x, inverse), y = round_int(v.y, inverse);
    const int z = round_int(v.z, inverse), w = round_int(v.w, inverse);
    const uint32_t low = __byte_perm(x, y, 0x0040), high = __byte_perm(z, w, 0x0040);
    const uint32_t codes = __byte_perm(low, high, 0x5410);
    if constexpr (kRounding == Rounding::kInt8) return codes;
    const uint32_t other = __shfl_xor_sync(0xffffffffu, codes, 4);
    return threadIdx.x % 8 < 4 ? __byte_perm(codes, other, 0x5140)
                               : __byte_perm(codes, other, 0x3726);
  }
}

// Of the row of 128 bytes that token has in a unit.
__device__ int64_t row_at(const RoundedInput& to, int64_t unit, int64_t token) {
  return (unit * to.stride + token) * kUnitCols;
}

// Stores the outliers as halves, in the order in which m16n8k16 reads columns of a step; zeros
// behind the last. Returns the power of two that they were divided by.
__device__ float store_outliers(const float* x, const OutlierView& outliers, int64_t token,
                                uint32_t* warps, const RoundedInput& to) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  uint32_t mine = 0;
  for (int i = thread; i < outliers.count; i += threads) {
    mine = max(mine, magnitude(x[outliers.columns[i]]));
  }
  const float scale = token_scale(__uint_as_float(largest_bits(mine, warps)));
  const int padded = (outliers.count + kOutlierCols - 1) / kOutlierCols * kOutlierCols;
  for (int i = thread; i < padded; i += threads) {
    const float value = i < outliers.count ? x[outliers.columns[i]] / scale : 0.f;
    const int element = i % 4, lane = i % 16 / 4;
    const int place = i % kOutlierCols / 16 * 16 + element / 2 * 8 + lane * 2 + element % 2;
    const int swizzled = (place / 8 ^ static_cast<int>(token % 8)) * 8 + place % 8;
    auto* row = reinterpret_cast<uint16_t*>(to.outliers + row_at(to, i / kOutlierCols, token));
    row[swizzled] = float_to_half(value);
  }
  return scale;
}

// One block per token; whole warps take units.
template <Rounding kRounding>
__global__ void __launch_bounds__(kMostThreads)
    round_inputs_wide(const PackedMatrix m, const float* inputs, float limit,
                      const OutlierView outliers, const RoundedInput to) {
  __shared__ uint32_t warps[2][kMostThreads / 32];
  grid_start();
  grid_wait();
  const int64_t token = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int quads = m.units * kUnitQuads;
  const float* x = inputs + token * m.cols;
  float4 held[kHeld];
  uint32_t mine = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (thread + i * threads < quads) held[i] = load_quad(m, x, outliers, thread + i * threads);
  }
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (thread + i * threads < quads) mine = max(mine, largest_of_quad(held[i]));
  }
  for (int quad = thread + kHeld * threads; quad < quads; quad += threads) {
    mine = max(mine, largest_of_quad(load_quad(m, x, outliers, quad)));
  }
  const TokenScale scale(largest_bits(mine, warps[0]), limit);
  float apart = 1;
  if (outliers.count > 0) apart = store_outliers(x, outliers, token, warps[1], to);
  if (thread == 0) {
    to.scales[token] = scale.scale / apart;
    if (outliers.count > 0) to.outlier_scales[token] = apart;
  }
  const auto store = [&](const float4& v, int quad) {
    const uint32_t codes = round_quad<kRounding>(v, scale.inverse);
    const int within = quad % kUnitQuads;
    const int at = (within / 4 ^ static_cast<int>(token % 8)) * 16 + within % 4 * 4;
    *reinterpret_cast<uint32_t*>(to.codes + row_at(to, quad / kUnitQuads, token) + at) = codes;
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (thread + i * threads < quads) store(held[i], thread + i * threads);
  }
  for (int quad = thread + kHeld * threads; quad < quads; quad += threads) {
    store(load_quad(m, x, outliers, quad), quad);
  }
}

template <Rounding kRounding>
__device__ float plain_code(float value, float inverse) {
  if constexpr (kRounding != Rounding::kE4M3) {
    return static_cast<float>(round_int(value, inverse));
  }
  const uint32_t code = inverse == 0 ? 0 : pack_e4m3(__fmul_rn(value, inverse), 0.f) & 0xffu;
  return half_to_float(static_cast<uint16_t>((code & 0x80u) << 8 | (code & 0x7fu) << 7)) * 256.f;
}

template <Rounding kRounding>
__global__ void __launch_bounds__(kMostThreads)
    round_inputs_plain(int cols, const float* inputs, float limit, const OutlierView outliers,
                       float* codes, float* scales) {
  __shared__ uint32_t warps[kMostThreads / 32];
  grid_start();
  grid_wait();
  const int64_t token = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const float* x = inputs + token * cols;
  const auto is_apart = [&](int k) {
    return outliers.count > 0 && (outliers.bits[k / 32] >> k % 32 & 1) != 0;
  };
  uint32_t mine = 0;
  for (int k = thread; k < cols; k += threads) {
    if (!is_apart(k)) mine = max(mine, magnitude(x[k]));
  }
  TokenScale scale(largest_bits(mine, warps), limit);
  const float inverse = scale.inverse;
  if (scale.scale == 0) scale.scale = 1;  // for the outliers
  if (thread == 0) scales[token] = scale.scale;
  for (int k = thread; k < cols; k += threads) {
    codes[token * cols + k] =
        is_apart(k) ? x[k] / scale.scale : plain_code<kRounding>(x[k], inverse);
  }
}

constexpr int kThreads = 256;

__global__ void scale_outputs(const float* scales, const float* bias, int rows, float* y,
                              int64_t y_stride) {
  grid_start();
  grid_wait();
  const int row = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x);
  if (row >= rows) return;
  float& value = y[blockIdx.x * y_stride + row];
  value = fmaf(value, scales[blockIdx.x], bias == nullptr ? 0.f : bias[row]);
}

int threads_for(int items) { return std::clamp((items + 31) / 32 * 32, 32, kMostThreads); }

}  // namespace

void launch_round_inputs(const PackedMatrix& matrix, const float* x, int tokens, Rounding rounding,
                         float limit, const OutlierView& outliers, const RoundedInput& to,
                         cudaStream_t stream) {
  const auto kernel = rounding == Rounding::kInt8   ? round_inputs_wide<Rounding::kInt8>
                      : rounding == Rounding::kInt4 ? round_inputs_wide<Rounding::kInt4>
                                                    : round_inputs_wide<Rounding::kE4M3>;
  launch(kernel, dim3(static_cast<unsigned>(tokens)), threads_for(matrix.units * kUnitQuads), 0,
         stream, matrix, x, limit, outliers, to);
}

void launch_round_plainly(int cols, const float* x, int tokens, Rounding rounding, float limit,
                          const OutlierView& outliers, float* codes, float* scales,
                          cudaStream_t stream) {
  const auto kernel = rounding == Rounding::kE4M3 ? round_inputs_plain<Rounding::kE4M3>
                                                  : round_inputs_plain<Rounding::kInt8>;
  launch(kernel, dim3(static_cast<unsigned>(tokens)), threads_for(cols), 0, stream, cols, x, limit,
         outliers, codes, scales);
}

void launch_scale_outputs(const float* scales, const float* bias, int tokens, int rows, float* y,
                          int64_t y_stride, cudaStream_t stream) {
  launch(
      scale_outputs,
      dim3(static_cast<unsigned>(tokens), static_cast<unsigned>((rows + kThreads - 1) / kThreads)),
      kThreads, 0, stream, scales, bias, rows, y, y_stride);
}

}  // namespace lowbit::cuda

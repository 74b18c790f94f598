// Codes of the KV cache on the device: rounding a key or value (as runtime/kv_codes.h, to the bit),
// and widening codes to halves for the tensor cores.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cuda/kv_pages.h"
#include "lowbit/runtime/cuda/mma.cuh"
#include "lowbit/runtime/kv_codes.h"

namespace lowbit::cuda {

// Pairs of halves.
__device__ inline uint32_t multiply_pair(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
__device__ inline uint32_t multiply_add_pair(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
// The lower two codes. Not NaN.
__device__ inline uint32_t e4m3_pair(uint32_t codes) {
#if __CUDA_ARCH__ >= 890
  uint32_t d;
  asm("{.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.rn.f16x2.e4m3x2 %0, low;}"
      : "=r"(d)
      : "r"(codes));
  return d;
#else  // their bits are those of halves of 1/256
  const uint32_t apart = __byte_perm(codes, 0, 0x1404);
  return multiply_pair(and_or(apart, 0x80008000u, (apart & 0x7f007f00u) >> 1), 0x5c005c00u);
#endif
}
__device__ inline uint32_t pair_of(float first, float second) {
  uint32_t d;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(second), "f"(first));
  return d;
}

// What codes are multiplied by and what is added, of two elements each: of registers 0 and 1 of an
// operand. The halves of kInt8 are codes / 128.
struct KvScales {
  uint32_t scale[2], offset[2];
};
constexpr float kInt8Unit = 128;

// The codes of a step in 4 bytes (8 bits) or the registers `half` and `half` + stride of a word (4
// bits, see kv_pages.h) as an operand.
template <CacheType kType>
__device__ inline void widen_codes(uint32_t word, const KvScales& s, uint32_t (&b)[2]) {
  if constexpr (kType == CacheType::kE4M3) {
    b[0] = multiply_pair(e4m3_pair(word), s.scale[0]);
    b[1] = multiply_pair(e4m3_pair(word >> 16), s.scale[1]);
  } else {  // 1152 + code are the bits of a half beside the stored byte
    static_assert(kType == CacheType::kInt8);
    constexpr uint32_t kUnit = 0x20002000, kLess = 0xc880c880;  // 1 / 128, -9
    const uint32_t low = __byte_perm(word, 0x64646464, 0x4140);
    const uint32_t high = __byte_perm(word, 0x64646464, 0x4342);
    b[0] = multiply_pair(multiply_add_pair(low, kUnit, kLess), s.scale[0]);
    b[1] = multiply_pair(multiply_add_pair(high, kUnit, kLess), s.scale[1]);
  }
}
// Register `half` of a word of 4-bit codes: 16 + code are the bits of a half.
template <int kHalf>
__device__ inline uint32_t widen_nibbles(uint32_t word, uint32_t scale, uint32_t offset) {
  constexpr uint32_t kMask = 0x03c003c0, kSixteen = 0x4c004c00;
  const uint32_t placed = kHalf == 0   ? word << 6
                          : kHalf == 1 ? word << 2
                          : kHalf == 2 ? word >> 2
                                       : word >> 6;
  return multiply_add_pair(and_or(placed, kMask, kSixteen), scale, offset);
}

// The scales of one key, for both registers. scales: of its page; group: of kInt4.
template <CacheType kType>
__device__ inline KvScales scales_of_key(const uint8_t* scales, int key, int group) {
  KvScales s;
  const uint8_t* at = scales + scale_place(kType, key, group);
  if constexpr (kType == CacheType::kInt4) {
    const uint32_t both = *reinterpret_cast<const uint32_t*>(at);
    s.scale[0] = __byte_perm(both, 0, 0x1010);
    s.offset[0] = __byte_perm(both, 0, 0x3232);
  } else if constexpr (kType == CacheType::kE4M3) {
    const uint32_t one = *reinterpret_cast<const uint16_t*>(at);
    s.scale[0] = __byte_perm(one, 0, 0x1010);
  } else {
    const float one = *reinterpret_cast<const float*>(at) * kInt8Unit;
    s.scale[0] = pair_of(one, one);
  }
  s.scale[1] = s.scale[0];
  s.offset[1] = s.offset[0];
  return s;
}
// Those of values key, key + 1 (register 0), key + 8 and key + 9 (register 1); key is even. Of
// those that are `written` or later: 0, whatever their codes are.
template <CacheType kType, bool kWhole>
__device__ inline KvScales scales_of_values(const uint8_t* scales, int key, int group,
                                            int written) {
  KvScales s = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int first = key + 8 * i;
    const uint8_t* at = scales + scale_place(kType, first, group);
    const uint32_t mask = kWhole || first + 1 < written ? 0xffffffffu
                          : first < written             ? 0xffffu
                                                        : 0;
    if constexpr (kType == CacheType::kInt4) {
      const uint2 both = *reinterpret_cast<const uint2*>(at);
      s.scale[i] = __byte_perm(both.x, both.y, 0x5410) & mask;
      s.offset[i] = __byte_perm(both.x, both.y, 0x7632) & mask;
    } else if constexpr (kType == CacheType::kE4M3) {
      s.scale[i] = *reinterpret_cast<const uint32_t*>(at) & mask;
    } else {
      const float2 both = *reinterpret_cast<const float2*>(at);
      s.scale[i] = pair_of(both.x * kInt8Unit, both.y * kInt8Unit) & mask;
    }
  }
  return s;
}

// One code as fp32. page: in memory.
__device__ inline float value_of_code(CacheType type, const uint8_t* page, int dim, int which,
                                      int key, int d) {
  const KvPlace place = kv_place(type, dim, which, key, d);
  const uint32_t code = page[place.byte] >> place.shift;
  const uint8_t* scales = page + 64 * row_bytes(type, dim);
  const uint8_t* at = scales + scale_place(type, key, d / kKvGroupDims);
  if (type == CacheType::kInt4) {
    const auto* pair = reinterpret_cast<const uint16_t*>(at);
    return fmaf(half_to_float(pair[0]), static_cast<float>(16 + (code & 15)),
                half_to_float(pair[1]));
  }
  if (type == CacheType::kE4M3) {
    const auto value = static_cast<uint16_t>(e4m3_pair(code));
    return half_to_float(value) * half_to_float(*reinterpret_cast<const uint16_t*>(at));
  }
  return static_cast<float>(static_cast<int>(code) - 128) * *reinterpret_cast<const float*>(at);
}

__device__ inline float most_of_warp(float value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  return value;
}
__device__ inline uint32_t e4m3_of(float value) {
#if __CUDA_ARCH__ >= 890
  uint16_t codes;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(0.f), "f"(value));
  return codes & 0xffu;
#else  // as f32_to_e4m3 (tensor/codebook.h)
  const uint32_t bits = __float_as_uint(value), sign = bits >> 24 & 0x80u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x43e00000u) return sign | 0x7eu;
  if (magnitude < 0x3c800000u) {
    return sign | (__float_as_uint(__fadd_rn(__uint_as_float(magnitude), 0x1p14f)) - 0x46800000u);
  }
  return sign | (((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3));
#endif
}

// mix_dimensions() by one warp. kPer: elements lane, lane + 32, ... of each lane.
template <int kPer>
__device__ void mix_lanes(float (&v)[kPer], bool is_key) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int apart = 1; apart < 32; apart *= 2) {
#pragma unroll
    for (float& x : v) {
      const float other = __shfl_xor_sync(0xffffffffu, x, apart);
      x = (lane & apart) == 0 ? __fadd_rn(x, other) : __fsub_rn(other, x);
    }
  }
#pragma unroll
  for (int apart = 1; apart < kPer; apart *= 2) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      if ((i & apart) != 0) continue;
      const float a = v[i], b = v[i + apart];
      v[i] = __fadd_rn(a, b);
      v[i + apart] = __fsub_rn(a, b);
    }
  }
#pragma unroll
  for (float& x : v) x = __fmul_rn(x, mixing_factor(32 * kPer, is_key));
}
// The same by the four lanes that hold a row for the tensor cores: of each 8 elements two each.
template <int kEights>
__device__ void mix_fragment(float2 (&v)[kEights]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (float2& x : v) x = make_float2(__fadd_rn(x.x, x.y), __fsub_rn(x.x, x.y));
#pragma unroll
  for (int apart = 1; apart < 4; apart *= 2) {
    const bool lower = (lane & apart) == 0;
#pragma unroll
    for (float2& x : v) {
      const float2 other = make_float2(__shfl_xor_sync(0xffffffffu, x.x, apart),
                                       __shfl_xor_sync(0xffffffffu, x.y, apart));
      x = lower ? make_float2(__fadd_rn(x.x, other.x), __fadd_rn(x.y, other.y))
                : make_float2(__fsub_rn(other.x, x.x), __fsub_rn(other.y, x.y));
    }
  }
#pragma unroll
  for (int apart = 1; apart < kEights; apart *= 2) {
#pragma unroll
    for (int i = 0; i < kEights; ++i) {
      if ((i & apart) != 0) continue;
      const float2 a = v[i], b = v[i + apart];
      v[i] = make_float2(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y));
      v[i + apart] = make_float2(__fsub_rn(a.x, b.x), __fsub_rn(a.y, b.y));
    }
  }
#pragma unroll
  for (float2& x : v) {
    constexpr float kFactor = mixing_factor(8 * kEights, false);
    x = make_float2(__fmul_rn(x.x, kFactor), __fmul_rn(x.y, kFactor));
  }
}
template <int kPer>
__device__ void mix_in_memory(float* x, bool is_key) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float v[kPer];
#pragma unroll
  for (int i = 0; i < kPer; ++i) v[i] = x[lane + 32 * i];
  mix_lanes(v, is_key);
#pragma unroll
  for (int i = 0; i < kPer; ++i) x[lane + 32 * i] = v[i];
  __syncwarp();
}
__device__ inline void mix_row(float* x, int dim, bool is_key) {
  if (dim == 128) return mix_in_memory<4>(x, is_key);
  if (dim == 64) return mix_in_memory<2>(x, is_key);
  const int lane = static_cast<int>(threadIdx.x) % 32, size = dim & -dim;
  for (int apart = 1; apart < size; apart *= 2) {
    for (int i = lane; i < dim / 2; i += 32) {
      const int at = i / apart * 2 * apart + i % apart;
      const float a = x[at], b = x[at + apart];
      x[at] = __fadd_rn(a, b);
      x[at + apart] = __fsub_rn(a, b);
    }
    __syncwarp();
  }
  const float factor = mixing_factor(size, is_key);
  for (int i = lane; i < dim; i += 32) x[i] = __fmul_rn(x[i], factor);
  __syncwarp();
}

// Rounds a key or a value, by one warp. x: [dim]; put(byte, value): stores a byte of the page's
// codes; put_scale(byte, bits, bytes): `bytes` of its scales.
template <typename Put, typename PutScale>
__device__ void round_row(CacheType type, const float* x, int dim, int which, int key,
                          const Put& put, const PutScale& put_scale) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int span = type == CacheType::kInt4 ? kKvGroupDims : dim;
  for (int first = 0; first < dim; first += span) {
    const int count = min(span, dim - first), group = first / kKvGroupDims;
    float least = INFINITY, greatest = -INFINITY;
    bool fault = false;
    for (int d = first + lane; d < first + count; d += 32) {
      least = fminf(least, x[d]);
      greatest = fmaxf(greatest, x[d]);
      fault = fault || !isfinite(x[d]);
    }
    least = -most_of_warp(-least);
    greatest = most_of_warp(greatest);
    fault = __any_sync(0xffffffffu, fault);
    const float most = fmaxf(-least, greatest);
    const int scale_at = scale_place(type, key, group);
    if (type == CacheType::kInt4) {
      const uint16_t scale = float_to_half(__fmul_rn(__fsub_rn(greatest, least), 1.f / 15));
      const float wide = half_to_float(scale);
      const uint16_t offset = fault ? uint16_t{0x7fff} : float_to_half(fmaf(-16.f, wide, least));
      const float base = half_to_float(offset), inverse = wide > 0 ? __fdiv_rn(1.f, wide) : 0.f;
      const auto code = [&](int d) {
        const float rounded = rintf(__fmul_rn(__fsub_rn(x[d], base), inverse));
        return static_cast<uint32_t>(fmaxf(16.f, fminf(31.f, rounded))) & 15u;
      };
      for (int i = lane; i < count / 2; i += 32) {
        const int d = first + lower_dimension(dim, which, i);
        put(kv_place(type, dim, which, key, d).byte, code(d) | code(upper_partner(dim, which, d))
                                                                   << 4);
      }
      if (lane == 0) put_scale(scale_at, scale | static_cast<uint32_t>(offset) << 16, 4);
    } else if (type == CacheType::kE4M3) {
      const uint16_t scale =
          fault ? uint16_t{0x7fff} : float_to_half(fmaxf(__fdiv_rn(most, 448.f), 0x1p-14f));
      const float inverse = __fdiv_rn(1.f, half_to_float(scale));
      for (int d = lane; d < dim; d += 32) {
        put(kv_place(type, dim, which, key, d).byte,
            fault ? 0u : e4m3_of(__fmul_rn(x[d], inverse)));
      }
      if (lane == 0) put_scale(scale_at, scale, 2);
    } else {
      const bool codable = !fault && most > 1e-30f;
      const float inverse = codable ? __fdiv_rn(127.f, most) : 0.f;
      const float scale = codable ? __fdiv_rn(most, 127.f) : fault ? NAN : 0.f;
      for (int d = lane; d < dim; d += 32) {
        const int code = codable ? static_cast<int>(rintf(__fmul_rn(x[d], inverse))) : 0;
        put(kv_place(type, dim, which, key, d).byte, static_cast<uint32_t>(code + 128));
      }
      if (lane == 0) put_scale(scale_at, __float_as_uint(scale), 4);
    }
  }
}

}  // namespace lowbit::cuda

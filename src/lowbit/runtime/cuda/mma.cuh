// What the linear kernels share: widening of codes to 16-bit floats in registers, the tensor core's
// m16n8k16 product, and 16-bit columns made of fp32 inputs. sm_80 and up.
//
// One step multiplies 16 rows x 16 columns of weights with 8 columns of inputs. Integer codes
// become exact halves (code - zero); the scale of a group multiplies its partial sum in fp32.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cuda/kernels.h"

namespace lowbit::cuda {

constexpr int kUnitSteps = kUnitCols / 16;
constexpr float kSplitFactor = 2048;  // between a half and its remainder

// (a & b) | c
__device__ inline uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
__device__ inline uint32_t sub_half2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("sub.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
__device__ inline uint32_t fma_half2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
__device__ inline uint16_t float_to_half(float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
__device__ inline float half_to_float(uint16_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}
__device__ inline uint16_t float_to_bf16(float value) {
  uint16_t half;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
__device__ inline float bf16_to_float(uint16_t half) {
  return __uint_as_float(static_cast<uint32_t>(half) << 16);
}

__device__ inline void copy16_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global)
               : "memory");
}
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ inline void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// c += a * b; a: 16 x 16 weights, b: 16 inputs x 8 columns, in the lanes of a warp.
template <Storage kStorage>
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (kStorage == Storage::kBF16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

constexpr bool is_scaled(Storage storage) {
  return storage != Storage::kF16 && storage != Storage::kBF16;
}
constexpr bool is_integer(Storage storage) {
  return storage == Storage::kInt4 || storage == Storage::kInt8;
}

// What widening subtracts, for the two rows of a lane, as pairs of halves: 1024 + zero; and for the
// upper nibbles, which arrive sixteen times as large, -(64 + zero).
struct ZeroPairs {
  uint32_t low[2], high[2];
};

__device__ inline ZeroPairs zero_pairs(int zero0, int zero8) {
  ZeroPairs pairs;
  pairs.low[0] = (0x6400u | static_cast<uint32_t>(zero0)) * 0x10001u;
  pairs.low[1] = (0x6400u | static_cast<uint32_t>(zero8)) * 0x10001u;
  for (int i = 0; i < 2; ++i) {
    pairs.high[i] = sub_half2(0x63806380u, pairs.low[i]);  // 960 - (1024 + zero)
  }
  return pairs;
}

// The four codes of one row of a lane in one step, as two pairs of halves. word: the 32 bits that
// hold them; odd: 4-bit codes of the second step in it.
template <Storage kStorage>
__device__ inline void widen_row(uint32_t word, bool odd, uint32_t zero_low, uint32_t zero_high,
                                 const uint32_t* table, uint32_t& pair0, uint32_t& pair1) {
  if constexpr (kStorage == Storage::kInt4) {
    const uint32_t codes = odd ? word >> 8 : word;
    pair0 = sub_half2(and_or(codes, 0x000f000fu, 0x64006400u), zero_low);
    pair1 = fma_half2(and_or(codes, 0x00f000f0u, 0x64006400u), 0x2c002c00u, zero_high);
  } else if constexpr (kStorage == Storage::kInt8) {
    pair0 = sub_half2(__byte_perm(word, 0x64646464u, 0x4140), zero_low);
    pair1 = sub_half2(__byte_perm(word, 0x64646464u, 0x4342), zero_low);
  } else if constexpr (kStorage == Storage::kE4M3) {
    // The bits of a half of 1/256 of the value.
    const uint32_t low = __byte_perm(word, 0, 0x1404), high = __byte_perm(word, 0, 0x3424);
    pair0 = and_or(low, 0x80008000u, (low & 0x7f007f00u) >> 1);
    pair1 = and_or(high, 0x80008000u, (high & 0x7f007f00u) >> 1);
  } else if constexpr (kStorage == Storage::kTable4) {
    const uint32_t bytes = odd ? word >> 16 : word;
    pair0 = table[bytes & 0xffu];
    pair1 = table[bytes >> 8 & 0xffu];
  }
}

// One step of a lane's weights. words: the lane's 16 bytes that hold the step; step: within the
// unit of 128 columns.
template <Storage kStorage>
__device__ inline void widen(const uint4& words, int step, const ZeroPairs& zero,
                             const uint32_t* table, uint32_t (&a)[4]) {
  if constexpr (!is_scaled(kStorage)) {
    a[0] = words.x, a[1] = words.z, a[2] = words.y, a[3] = words.w;
  } else {
    constexpr bool kFour = kStorage == Storage::kInt4 || kStorage == Storage::kTable4;
    const bool second = kFour ? step % 4 / 2 != 0 : step % 2 != 0;
    const bool odd = kFour && step % 2 != 0;
    widen_row<kStorage>(second ? words.y : words.x, odd, zero.low[0], zero.high[0], table, a[0],
                        a[2]);
    widen_row<kStorage>(second ? words.w : words.z, odd, zero.low[1], zero.high[1], table, a[1],
                        a[3]);
  }
}

// Scales of a lane's two rows, and the zeros or offsets beside them, of one group of a record.
struct GroupValues {
  float scale[2];
  float offset[2];
};

__device__ inline float2 scale_pair(const PackedMatrix& m, const uint8_t* record, int index) {
  float2 pair;
  if (m.scale_type == ScaleType::kF32) {
    pair = reinterpret_cast<const float2*>(record)[index];
  } else {
    const uint32_t bits = reinterpret_cast<const uint32_t*>(record)[index];
    const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits >> 16);
    pair = m.scale_type == ScaleType::kF16
               ? make_float2(half_to_float(low), half_to_float(high))
               : make_float2(bf16_to_float(low), bf16_to_float(high));
  }
  return make_float2(pair.x * m.factor, pair.y * m.factor);
}

__device__ inline int scale_bytes(const PackedMatrix& m) {
  return m.scale_type == ScaleType::kF32 ? 4 : 2;
}

// `row` is lane / 4: rows row and row + 8.
__device__ inline const uint8_t* after_scales(const PackedMatrix& m, const uint8_t* record) {
  return record + kUnitSteps / m.fold * kTileRows * scale_bytes(m);
}

__device__ inline ZeroPairs group_zeros(const PackedMatrix& m, const uint8_t* record, int group,
                                        int row) {
  if (m.zero_type != ZeroType::kInt) return zero_pairs(m.center, m.center);
  const uint8_t* zeros = after_scales(m, record) + group * kTileRows + 2 * row;
  return zero_pairs(zeros[0], zeros[1]);
}

// Adds a group's partial sums to those of the segment. ones: the sums of the inputs, if kOffset.
template <bool kOffset>
__device__ inline void fold_group(const PackedMatrix& m, const uint8_t* record, int group, int row,
                                  const float (&part)[4], const float (&ones)[4],
                                  float (&segment)[4]) {
  const float2 scale = scale_pair(m, record, group * (kTileRows / 2) + row);
  segment[0] = fmaf(scale.x, part[0], segment[0]);
  segment[1] = fmaf(scale.x, part[1], segment[1]);
  segment[2] = fmaf(scale.y, part[2], segment[2]);
  segment[3] = fmaf(scale.y, part[3], segment[3]);
  if constexpr (kOffset) {
    // scale * code + offset = scale * (code - center) + (offset + scale * center)
    const float2 offset = reinterpret_cast<const float2*>(
        after_scales(m, record))[group * (kTileRows / 2) + row];
    const float center = static_cast<float>(m.center);
    const float offset0 = fmaf(center, scale.x, offset.x);
    const float offset8 = fmaf(center, scale.y, offset.y);
    segment[0] = fmaf(offset0, ones[0], segment[0]);
    segment[1] = fmaf(offset0, ones[1], segment[1]);
    segment[2] = fmaf(offset8, ones[2], segment[2]);
    segment[3] = fmaf(offset8, ones[3], segment[3]);
  }
}

// 256 pairs of table values, for bytes of two codes.
__device__ inline void fill_table(const PackedMatrix& m, uint32_t* table) {
  for (int i = static_cast<int>(threadIdx.x); i < 256; i += static_cast<int>(blockDim.x)) {
    table[i] = m.half_table[i & 15] | static_cast<uint32_t>(m.half_table[i >> 4]) << 16;
  }
}

// Halves reach to 65504: a token with a larger value is multiplied by a power of two, and its
// product divided by it again. Depends on the token alone.
constexpr float kHalfLimit = 32768;
__device__ inline float token_scale(float largest) {
  if (!(largest >= kHalfLimit) || isinf(largest)) return 1;
  return exp2f(static_cast<float>(ilogbf(largest) - 14));
}

// Four neighbouring inputs of a token, zeros behind the last column.
__device__ inline float4 load_inputs(const PackedMatrix& m, const float* x, int k) {
  if (m.input_order == nullptr && m.cols % 4 == 0 && k < m.cols) {
    return *reinterpret_cast<const float4*>(x + k);
  }
  float values[4];
  for (int i = 0; i < 4; ++i) {
    const int column = k + i;
    if (column >= m.cols) {
      values[i] = 0;
    } else {
      values[i] = x[m.input_order == nullptr ? column : m.input_order[column]];
    }
  }
  return make_float4(values[0], values[1], values[2], values[3]);
}

__device__ inline float largest_of(const float4& v) {
  return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

template <bool kBrain>
__device__ inline uint16_t to_16(float value) {
  return kBrain ? float_to_bf16(value) : float_to_half(value);
}
template <bool kBrain>
__device__ inline float from_16(uint16_t value) {
  return kBrain ? bf16_to_float(value) : half_to_float(value);
}

// Where inputs k .. k + 3 stand in a column in 16 bits: of 64, the four of each step that one lane
// wants follow one another.
__device__ inline int column_place(int k) { return k / 64 * 64 + k % 16 * 4 + k % 64 / 16 * 4; }

// Stores four inputs in 16 bits at `at`, and their remainders at `at + stride` if split.
template <bool kBrain>
__device__ inline void store_inputs(const float4& v, float inverse, bool split, uint16_t* at,
                                    int64_t stride) {
  const float values[4] = {v.x * inverse, v.y * inverse, v.z * inverse, v.w * inverse};
  ushort4 high, low;
  uint16_t* h = &high.x;
  uint16_t* l = &low.x;
  for (int i = 0; i < 4; ++i) {
    h[i] = to_16<kBrain>(values[i]);
    l[i] = to_16<kBrain>((values[i] - from_16<kBrain>(h[i])) * kSplitFactor);
  }
  *reinterpret_cast<ushort4*>(at) = high;
  if (split) *reinterpret_cast<ushort4*>(at + stride) = low;
}

}  // namespace lowbit::cuda

// What the linear kernels share: widening of codes to 16-bit floats in registers, the tensor core's
// m16n8k16 product, and 16-bit columns made of fp32 inputs. sm_80 and up.
//
// One step multiplies 16 rows x 16 columns of weights with 8 columns of inputs. Integer codes are
// taken for the bits of subnormal halves, code * 2^-24, exactly; upper nibbles are 16 times as
// large, and their inputs 16 times as small. The sum of a group is multiplied by its scale in fp32,
// and its zero point by the sum of the group's inputs.
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

// The value of a code over what it is widened to.
template <Storage kStorage>
__device__ inline float widening_factor(const PackedMatrix& m) {
  if constexpr (kStorage == Storage::kInt4) return 0x1p20f;  // with inputs 16 times as large
  if constexpr (kStorage == Storage::kInt8) return 0x1p24f;
  if constexpr (kStorage == Storage::kE4M3) return 256;
  return kStorage == Storage::kTable4 ? m.table_factor : 1.f;
}

// The four codes of one row of a lane in one step, as two pairs of halves. word: the 32 bits that
// hold them; odd: 4-bit codes of the second step in it.
template <Storage kStorage>
__device__ inline void widen_row(uint32_t word, bool odd, const uint32_t* table, uint32_t& pair0,
                                 uint32_t& pair1) {
  if constexpr (kStorage == Storage::kInt4) {
    const uint32_t codes = odd ? word >> 8 : word;
    pair0 = codes & 0x000f000fu;
    pair1 = codes & 0x00f000f0u;
  } else if constexpr (kStorage == Storage::kInt8) {
    pair0 = __byte_perm(word, 0, 0x4140);
    pair1 = __byte_perm(word, 0, 0x4342);
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
__device__ inline void widen(const uint4& words, int step, const uint32_t* table,
                             uint32_t (&a)[4]) {
  if constexpr (!is_scaled(kStorage)) {
    a[0] = words.x, a[1] = words.z, a[2] = words.y, a[3] = words.w;
  } else {
    constexpr bool kFour = kStorage == Storage::kInt4 || kStorage == Storage::kTable4;
    const bool second = kFour ? step % 4 / 2 != 0 : step % 2 != 0;
    const bool odd = kFour && step % 2 != 0;
    widen_row<kStorage>(second ? words.y : words.x, odd, table, a[0], a[2]);
    widen_row<kStorage>(second ? words.w : words.z, odd, table, a[1], a[3]);
  }
}

// Halves as scales and codes around a center: what kernels have a version of their own for.
__host__ __device__ constexpr bool is_usual(const PackedMatrix& m) {
  return m.scale_type == ScaleType::kF16 && m.zero_type == ZeroType::kCenter;
}

// The scales of a lane's two rows.
template <bool kUsual>
__device__ inline float2 scale_pair(const PackedMatrix& m, const uint8_t* record, int index) {
  if (!kUsual && m.scale_type == ScaleType::kF32)
    return reinterpret_cast<const float2*>(record)[index];
  const uint32_t bits = reinterpret_cast<const uint32_t*>(record)[index];
  const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits >> 16);
  return kUsual || m.scale_type == ScaleType::kF16
             ? make_float2(half_to_float(low), half_to_float(high))
             : make_float2(bf16_to_float(low), bf16_to_float(high));
}

__device__ inline int scale_bytes(const PackedMatrix& m) {
  return m.scale_type == ScaleType::kF32 ? 4 : 2;
}

// `row` is lane / 4: rows row and row + 8.
__device__ inline const uint8_t* after_scales(const PackedMatrix& m, const uint8_t* record) {
  return record + kUnitSteps / m.fold * kTileRows * scale_bytes(m);
}

// Adds a group's sums of products to those of the segment. inputs: the sums of the inputs of the
// lane's two columns, for integers.
template <Storage kStorage, bool kUsual = false>
__device__ inline void fold_group(const PackedMatrix& m, const uint8_t* record, int group, int row,
                                  const float (&part)[4], const float2& inputs,
                                  float (&segment)[4]) {
  const int index = group * (kTileRows / 2) + row;
  const float2 scale = scale_pair<kUsual>(m, record, index);
  const float factor = widening_factor<kStorage>(m);
  const float scale0 = scale.x * factor, scale8 = scale.y * factor;
  segment[0] = fmaf(scale0, part[0], segment[0]);
  segment[1] = fmaf(scale0, part[1], segment[1]);
  segment[2] = fmaf(scale8, part[2], segment[2]);
  segment[3] = fmaf(scale8, part[3], segment[3]);
  if constexpr (is_integer(kStorage)) {
    float2 offset;  // scale * code + offset is the weight
    if (kUsual || m.zero_type == ZeroType::kCenter) {
      const float center = static_cast<float>(m.center);
      offset = make_float2(-scale.x * center, -scale.y * center);
    } else if (m.zero_type == ZeroType::kInt) {
      const uint8_t* zeros = after_scales(m, record) + 2 * index;
      offset = make_float2(-scale.x * static_cast<float>(zeros[0]),
                           -scale.y * static_cast<float>(zeros[1]));
    } else {
      offset = reinterpret_cast<const float2*>(after_scales(m, record))[index];
    }
    segment[0] = fmaf(offset.x, inputs.x, segment[0]);
    segment[1] = fmaf(offset.x, inputs.y, segment[1]);
    segment[2] = fmaf(offset.y, inputs.x, segment[2]);
    segment[3] = fmaf(offset.y, inputs.y, segment[3]);
  }
}

// 256 pairs of table values, for bytes of two codes.
__device__ inline void fill_table(const PackedMatrix& m, uint32_t* table) {
  for (int i = static_cast<int>(threadIdx.x); i < 256; i += static_cast<int>(blockDim.x)) {
    table[i] = m.half_table[i & 15] | static_cast<uint32_t>(m.half_table[i >> 4]) << 16;
  }
}

// Halves have limits: a token whose largest value is outside of these is divided by a power of two
// before it becomes halves, and its product multiplied by it. Depends on the token alone.
constexpr float kLargeInput = 2048, kSmallInput = 0x1p-6f;
__device__ inline float token_scale(float largest) {
  if ((largest < kLargeInput && largest >= kSmallInput) || !(largest > 0) || isinf(largest)) {
    return 1;
  }
  return exp2f(static_cast<float>(max(ilogbf(largest), -100) - 10));
}

// Four neighbouring inputs of a token, zeros behind the last column.
__device__ inline float4 load_inputs(const PackedMatrix& m, const float* x, int k) {
  if (m.input_order == nullptr && m.cols % 4 == 0) {
    return k < m.cols ? *reinterpret_cast<const float4*>(x + k) : make_float4(0, 0, 0, 0);
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

// The largest value (none is negative) of a block of threads, in every thread. warps: one float for
// each warp, not in use.
__device__ inline float largest_of_block(float value, float* warps) {
  const int thread = static_cast<int>(threadIdx.x), count = static_cast<int>(blockDim.x) / 32;
  // Floats that are not negative are ordered as their bits are.
  value = __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(value)));
  if (thread % 32 == 0) warps[thread / 32] = value;
  __syncthreads();
  value = warps[thread % count];
  return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(value)));
}

// Four inputs in 16 bits, and their sum.
struct Quad {
  ushort4 values;
  float sum;
};
template <Storage kStorage>
__device__ inline Quad to_quad(const float4& v) {
  constexpr bool kBrain = kStorage == Storage::kBF16;
  const Quad quad{{to_16<kBrain>(v.x), to_16<kBrain>(v.y), to_16<kBrain>(v.z), to_16<kBrain>(v.w)},
                  0};
  return quad;
}
template <Storage kStorage>
__device__ inline float4 from_quad(const Quad& quad) {
  constexpr bool kBrain = kStorage == Storage::kBF16;
  return make_float4(from_16<kBrain>(quad.values.x), from_16<kBrain>(quad.values.y),
                     from_16<kBrain>(quad.values.z), from_16<kBrain>(quad.values.w));
}

// Rounds four inputs to 16 bits; what is lost, times kSplitFactor, is left in `v`. For 4-bit codes
// the first two are multiplied by 16, because the codes of the last two arrive so.
template <Storage kStorage>
__device__ inline Quad take_quad(float4& v) {
  Quad quad = to_quad<kStorage>(v);
  const float4 taken = from_quad<kStorage>(quad);
  quad.sum = (taken.x + taken.y) + (taken.z + taken.w);
  v = make_float4((v.x - taken.x) * kSplitFactor, (v.y - taken.y) * kSplitFactor,
                  (v.z - taken.z) * kSplitFactor, (v.w - taken.w) * kSplitFactor);
  if constexpr (kStorage == Storage::kInt4) {
    quad.values.x = to_16<false>(taken.x * 16);
    quad.values.y = to_16<false>(taken.y * 16);
  }
  return quad;
}

// Stores quad k / 4 of a column, whose neighbours are in the neighbouring lanes, and the sum of its
// group. All lanes of a warp take part. sums: of the column's groups, `stride` floats apart.
template <Storage kStorage>
__device__ inline void store_quad(int fold, Quad quad, int k, uint16_t* column, float* sums,
                                  int64_t stride) {
  *reinterpret_cast<ushort4*>(column + column_place(k)) = quad.values;
  if constexpr (is_integer(kStorage)) {
    const int lanes = fold * 4;  // of a group
#pragma unroll
    for (int offset = 1; offset < lanes; offset *= 2) {
      quad.sum += __shfl_xor_sync(0xffffffffu, quad.sum, offset);
    }
    if (k / 4 % lanes == 0) sums[k / (fold * 16) * stride] = quad.sum;
  }
}

}  // namespace lowbit::cuda

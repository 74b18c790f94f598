// What the attention kernels of the tensor cores share. A query's result is defined by its own keys
// alone, whatever a block of threads takes:
//
// Keys, values  are halves; codes are widened to such by one rounding (kv_codes.cuh).
// Scores     q * log2(e) / sqrt(head_dim), rounded to fp16, times the keys, in steps of 16
//            dimensions.
// Spans      of 256 keys, each by itself: pages of 64 keys in order, after each of which the
// largest
//            score so far is what weights are relative to, 2^(score - largest); weights are rounded
//            to fp16 and multiplied by the values in steps of 16 keys; add_weights() sums them.
// Result     the spans merged in order, over their sum.
//
// A key that a query does not see has weight 0, and a page of such keys changes nothing. So it does
// not matter what other queries of its block see.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cuda/kernels.h"

namespace lowbit::cuda {

constexpr int kPageKeys = 64;
constexpr int kSpanPages = kAttentionSpan / kPageKeys;

// Maximum and sum of the weights seen so far, of one row.
struct RowSoftmax {
  float max, sum;
};

// 2^x; 2^0 is exactly 1, 2^-inf 0.
__device__ inline float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// What scores are relative to: 0 for a row that has seen no key.
__device__ inline float reference_of(float max) { return max == -INFINITY ? 0.f : max; }

// Weights by which a running result and that of the next span are multiplied when they merge.
__device__ inline float2 merge_spans(RowSoftmax& running, const RowSoftmax& span) {
  const float max = fmaxf(running.max, span.max), reference = reference_of(max);
  const float2 w = make_float2(exp2_of(running.max - reference), exp2_of(span.max - reference));
  running = {max, fmaf(running.sum, w.x, __fmul_rn(span.sum, w.y))};
  return w;
}
__device__ inline float merged_value(float running, float span, const float2& w) {
  return fmaf(running, w.x, __fmul_rn(span, w.y));
}

// The sum of a lane's weights of a row (of every 8 keys two) after another page. fours: of each 16
// keys, (first pair) + (second pair).
__device__ inline float add_weights(float sum, float factor, const float4& fours) {
  return fmaf(sum, factor, (fours.x + fours.y) + (fours.z + fours.w));
}
// The sum over the four lanes that hold a row.
__device__ inline float sum_of_row(float sum) {
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  return sum + __shfl_xor_sync(0xffffffffu, sum, 2);
}

// Two weights as halves, the first in the lower bits.
__device__ inline uint32_t pack_halves(float first, float second) {
  uint32_t halves;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(halves) : "f"(second), "f"(first));
  return halves;
}

__device__ inline void multiply_halves(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The first key that a query at `position` sees.
__device__ inline int first_key(const AttentionDims& dims, int position) {
  return dims.window > 0 ? max(0, position + 1 - dims.window) : 0;
}

// Which page of the layer's keys, or values, is a sequence's.
__device__ inline int64_t page_of(const AttentionLaunch& a, int table, int kv_head, int page) {
  const int64_t block = a.step.tables[table + page];
  return block * a.dims.kv_heads + kv_head;
}

}  // namespace lowbit::cuda

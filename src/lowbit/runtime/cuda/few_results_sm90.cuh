// Where the kernel for few queries leaves its sums: in the workspace, if other blocks have spans of
// the same row, else in the result.
#pragma once

#include "lowbit/runtime/cuda/attention_units.cuh"
#include "lowbit/runtime/cuda/few_pages_sm90.cuh"

namespace lowbit::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kMergeLoads = 16;  // spans that a thread asks for at once

// The rows of a unit as the lanes of four warps hold their sums: values 0, 1 of a tile of 8
// dimensions are of row lane / 4, columns 2 * (lane % 4) and the next; 2, 3 of the row 8 further.
template <int kDim>
class RowResults {
 public:
  static constexpr int kTiles = kDim / 32;  // of 8 dimensions, of a warp
  using Sums = float[kTiles][4];

  __device__ RowResults(const AttentionLaunch& launch, const Units& all) : a(launch), units(all) {
    warp = static_cast<int>(threadIdx.x) / 32;
    lane = static_cast<int>(threadIdx.x) % 32;
  }

 protected:
  __device__ int group() const { return a.dims.heads / a.dims.kv_heads; }
  __device__ int parts() const { return units.pairs / a.dims.kv_heads; }
  __device__ int kv_head_of(const Cursor& c) const { return c.pair / parts(); }
  __device__ int part_of(const Cursor& c) const { return c.pair % parts(); }
  __device__ int row_of(int half) const { return lane / 4 + half * 8; }
  __device__ int head_of(int row) const { return first_head + row % heads; }
  __device__ int column_of(int tile) const { return (warp + 4 * tile) * 8 + lane % 4 * 2; }

  __device__ float* slot_of(int unit) const {
    return a.workspace + static_cast<int64_t>(unit) * unit_floats(a);
  }
  __device__ void store(int unit, const Sums& values, const float (&max)[2],
                        const float (&row_sums)[2]) const {
    float* slot = slot_of(unit);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(h);
      if (row >= rows) continue;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        *reinterpret_cast<float2*>(slot + row * kDim + column_of(i)) =
            make_float2(values[i][2 * h], values[i][2 * h + 1]);
      }
      if (warp == 0 && lane % 4 == 0) {
        reinterpret_cast<float2*>(slot + unit_rows(a) * kDim)[row] =
            make_float2(max[h], row_sums[h]);
      }
    }
  }
  // Says that a span has been merged into an earlier one.
  __device__ void store_nothing(int unit) const {
    if (static_cast<int>(threadIdx.x) < unit_rows(a)) {
      reinterpret_cast<float2*>(slot_of(unit) + unit_rows(a) * kDim)[threadIdx.x] =
          make_float2(-INFINITY, 0);
    }
  }
  __device__ float* out_of(const Cursor& c, int row) const {
    return a.out + static_cast<int64_t>(c.queries.first + row / heads) * a.dims.heads * kDim +
           head_of(row) * kDim;
  }
  __device__ void write_rows(const Cursor& c, const Sums& all, const float (&all_sum)[2]) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(h);
      if (row >= rows) continue;
      float* out = out_of(c, row);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        *reinterpret_cast<float2*>(out + column_of(i)) = make_float2(
            __fdiv_rn(all[i][2 * h], all_sum[h]), __fdiv_rn(all[i][2 * h + 1], all_sum[h]));
      }
    }
  }

  // Whether all spans of the row have arrived with these `count`.
  __device__ bool arrives(const Cursor& c, int count, int spans) const {
    __shared__ bool last;
    computing_sync();
    if (threadIdx.x == 0) {
      int32_t* counter = a.arrivals + c.block * units.pairs + c.pair;
      int32_t before;
      asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], %2;"
                   : "=r"(before)
                   : "l"(counter), "r"(count)
                   : "memory");
      last = before + count == spans;
      if (last) *counter = 0;  // for the next launch
    }
    computing_sync();
    return last;
  }
  __device__ void merge(const Cursor& c, int spans) const {
    const int first = units.before(c.block) + c.pair * c.spans;
    for (int i = static_cast<int>(threadIdx.x) * 4; i < rows * kDim; i += kComputing * 4) {
      const int row = i / kDim;
      RowSoftmax running = {-INFINITY, 0};
      float4 sum = make_float4(0, 0, 0, 0);
      for (int base = 0; base < spans; base += kMergeLoads) {
        float4 values[kMergeLoads];
        float2 softmax[kMergeLoads];
#pragma unroll
        for (int k = 0; k < kMergeLoads; ++k) {
          const float* slot = slot_of(first + min(base + k, spans - 1));
          values[k] = __ldcg(reinterpret_cast<const float4*>(slot + i));
          softmax[k] = __ldcg(reinterpret_cast<const float2*>(slot + unit_rows(a) * kDim) + row);
        }
#pragma unroll
        for (int k = 0; k < kMergeLoads; ++k) {
          if (base + k >= spans || softmax[k].x == -INFINITY) continue;
          const float2 w = merge_spans(running, {softmax[k].x, softmax[k].y});
          sum =
              make_float4(merged_value(sum.x, values[k].x, w), merged_value(sum.y, values[k].y, w),
                          merged_value(sum.z, values[k].z, w), merged_value(sum.w, values[k].w, w));
        }
      }
      *reinterpret_cast<float4*>(out_of(c, row) + i % kDim) =
          make_float4(__fdiv_rn(sum.x, running.sum), __fdiv_rn(sum.y, running.sum),
                      __fdiv_rn(sum.z, running.sum), __fdiv_rn(sum.w, running.sum));
    }
  }

  const AttentionLaunch& a;
  const Units& units;
  int warp, lane;
  int rows, heads, first_head;  // of the row block
};

#endif

}  // namespace lowbit::cuda

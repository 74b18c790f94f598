// The work of attention_few with up to 16 rows: rows of the products are queries.
#pragma once

#include "lowbit/runtime/cuda/few_newest_sm90.cuh"
#include "lowbit/runtime/cuda/few_results_sm90.cuh"

namespace lowbit::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kWeightStride = 2 * kPageKeys * 2 + 16;  // bytes, of a row of two pages

// What the warps tell each other of two pages.
template <int kDim, CacheType kType>
struct SharedScores {
  alignas(16) float maxima[2][kUnitRows][4];  // of each warp's keys
  alignas(
      16) float fours[2][kUnitRows][4][4];  // of each lane of four, each warp: its sum of weights
  alignas(16) uint8_t weights[kUnitRows * kWeightStride];
  float newest[2][kDim];
};

// The work of four warps with up to 16 rows.
template <int kHeadDim, bool kDecodes, CacheType kPages>
class Worker : RowResults<kHeadDim> {
  using Base = RowResults<kHeadDim>;
  using Base::a, Base::units, Base::warp, Base::lane, Base::rows, Base::heads, Base::first_head;
  using Base::group, Base::kv_head_of, Base::part_of, Base::row_of, Base::head_of;

 public:
  static constexpr int kDim = kHeadDim;
  static constexpr bool kRotates = kDecodes;
  static constexpr CacheType kType = kPages;
  using Shared = SharedScores<kDim, kType>;
  using R = Ring<kDim, kType>;
  using Products = PageProducts<kDim, kType>;
  static constexpr int kSteps = kDim / 16;  // of 16 dimensions
  static constexpr int kTiles = Base::kTiles;

  __device__ Worker(const AttentionLaunch& launch, const Units& all_units, const R& pages,
                    Shared& memory)
      : Base(launch, all_units), ring(pages), shared(memory) {}

  __device__ void begin_row(const Cursor& c) {
    heads = min(row_heads(a.dims), group() - part_of(c) * row_heads(a.dims));
    first_head = kv_head_of(c) * group() + part_of(c) * row_heads(a.dims);
    rows = heads * c.queries.count;
    load_queries(c);
    if constexpr (kRotates) {
      newest.load(a, a.qkv + static_cast<int64_t>(c.queries.first) * a.dims.qkv_cols(),
                  kv_head_of(c), c.queries.position, shared.newest);
    }
    folds = c.span == c.first_span;
    folded = 0;
    all_max[0] = all_max[1] = -INFINITY;
    all_sum[0] = all_sum[1] = 0;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      for (int e = 0; e < 4; ++e) all[i][e] = 0;
    }
  }
  __device__ void begin_span() {
    max_[0] = max_[1] = -INFINITY;
    sum[0] = sum[1] = 0;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      for (int e = 0; e < 4; ++e) sums[i][e] = 0;
    }
  }

  // Adds the page of `c` and, if count is 2, the next to the span.
  __device__ void add_pages(const Cursor& c, int count, const Place (&at)[2]) {
    bool wrote = false;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      if (n == count) break;
      barrier_wait(ring.arrived(0, at[n]), at[n].parity);
      wrote = complete_page(c, c.page + n, at[n]) || wrote;
    }
    if (wrote) {
      writes_to_async();  // before the stage is filled again
      computing_sync();
    }
    float scores[2][2][4] = {};
    const Products products{warp, lane};
    products.score({ring.plane(0, at[0]), ring.plane(0, count == 2 ? at[1] : at[0])}, q, scores);
    mask(c, c.page, scores[0]);
    if (count == 2) {
      mask(c, c.page + 1, scores[1]);
    } else {
      for (float& x : scores[1][0]) x = -INFINITY;
      for (float& x : scores[1][1]) x = -INFINITY;
    }
    largest_of_warp(scores);
    __syncwarp();
    for (int n = 0; n < count; ++n) {
      if (lane == 0) barrier_arrive(ring.freed(0, at[n]));
    }
    computing_sync();
    float factors[2][2];
    soften(scores, factors);
    computing_sync();
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      if (n == count) break;
      barrier_wait(ring.arrived(1, at[n]), at[n].parity);
      begin_sums(n, factors[n]);
      products.add_values(ring.plane(1, at[n]), weights_of(n), sums);
      __syncwarp();
      if (lane == 0) barrier_arrive(ring.freed(1, at[n]));
    }
  }

  // Ends the unit of `c`, of which `last` says whether it is the row's last here.
  __device__ void end_span(const Cursor& c) {
    const float row_sums[2] = {sum_of_row(sum[0]), sum_of_row(sum[1])};
    if (!folds) return this->store(c.unit, sums, max_, row_sums);
    ++folded;
    float2 w[2];
    for (int h = 0; h < 2; ++h) {
      RowSoftmax running = {all_max[h], all_sum[h]};
      w[h] = merge_spans(running, {max_[h], row_sums[h]});
      all_max[h] = running.max;
      all_sum[h] = running.sum;
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      for (int e = 0; e < 4; ++e) all[i][e] = merged_value(all[i][e], sums[i][e], w[e / 2]);
    }
  }
  // Ends the row; `c` is at its last unit here, `count` of them. Writes the row, if it is complete.
  __device__ void end_row(const Cursor& c, int count) {
    const int spans = c.last_position() / kAttentionSpan + 1 - c.first_span;
    if (folds && folded == spans) return this->write_rows(c, all, all_sum);
    if (folds) {
      const int first = c.unit - (count - 1);
      this->store(first, all, all_max, all_sum);
      for (int i = 1; i < folded; ++i) this->store_nothing(first + i);
    }
    if (this->arrives(c, count, spans)) this->merge(c, spans);
  }

 private:
  __device__ int position_of(const Cursor& c, int row) const {
    return c.queries.position + min(row / heads, c.queries.count - 1);
  }
  // The rows of the queries that a lane holds for the tensor cores, scaled.
  __device__ void load_queries(const Cursor& c) {
    constexpr int kEights = kDim / 8, kHalf = kEights / 2;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(h);
      const bool valid = row < rows;
      const int token = c.queries.first + (valid ? row / heads : 0);
      const float* x = a.qkv + static_cast<int64_t>(token) * a.dims.qkv_cols() +
                       (valid ? head_of(row) : first_head) * kDim + lane % 4 * 2;
      const int64_t at = static_cast<int64_t>(c.queries.position) * (kDim / 2) + lane % 4 * 2;
      float2 v[kEights];
#pragma unroll
      for (int g = 0; g < kHalf; ++g) {
        v[g] = *reinterpret_cast<const float2*>(x + g * 8);
        v[g + kHalf] = *reinterpret_cast<const float2*>(x + g * 8 + kDim / 2);
        if (kRotates) {
          const float2 cos = *reinterpret_cast<const float2*>(a.cos + at + g * 8);
          const float2 sin = *reinterpret_cast<const float2*>(a.sin + at + g * 8);
          const float2 first = rotate(v[g].x, v[g + kHalf].x, cos.x, sin.x);
          const float2 second = rotate(v[g].y, v[g + kHalf].y, cos.y, sin.y);
          v[g] = make_float2(first.x, second.x);
          v[g + kHalf] = make_float2(first.y, second.y);
        }
      }
      if (kRotates && kType == CacheType::kInt4) mix_fragment(v);
#pragma unroll
      for (int g = 0; g < kEights; ++g) {
        q[g / 2][g % 2 * 2 + h] = !valid ? 0
                                         : pack_halves(__fmul_rn(v[g].x, a.score_scale),
                                                       __fmul_rn(v[g].y, a.score_scale));
      }
    }
  }

  __device__ void put_newest(const Cursor& c, const Place& at) const {
    void* to[2] = {};
    if (part_of(c) == 0) {
      const int64_t page =
          page_of(a, c.queries.table, kv_head_of(c), c.queries.position / kPageKeys);
      constexpr int kBytes = is_coded(kType) ? R::kPlane : kPageKeys * kDim * 2;
      to[0] = static_cast<uint8_t*>(a.cache.keys) + page * kBytes;
      to[1] = static_cast<uint8_t*>(a.cache.values) + page * kBytes;
    }
    newest.put(c.queries.position % kPageKeys, ring.plane(0, at), ring.plane(1, at), to,
               shared.newest);
  }

  // Puts what is missing into a page that the sequence ends in; returns whether it was one.
  __device__ bool complete_page(const Cursor& c, int page, const Place& at) const {
    const bool ends = kRotates && page == c.queries.position / kPageKeys;
    const int written = c.last_position() + 1 - page * kPageKeys;
    if (!ends && written >= kPageKeys) return false;
    barrier_wait(ring.arrived(1, at), at.parity);
    if constexpr (kRotates) {
      if (ends) put_newest(c, at);
    }
    Products::clear_unwritten(written, ring.plane(1, at));
    return true;
  }

  __device__ void mask(const Cursor& c, int page, float (&scores)[2][4]) const {
    const int first = page * kPageKeys;
    const bool whole = first + kPageKeys - 1 <= c.queries.position &&
                       first >= first_key(a.dims, c.last_position());
    if (whole) return;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int position = position_of(c, row_of(h)), from = first_key(a.dims, position);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first + warp * 16 + i / 2 * 8 + lane % 4 * 2 + i % 2;
        if (key < from || key > position) scores[i / 2][h * 2 + i % 2] = -INFINITY;
      }
    }
  }
  __device__ void largest_of_warp(const float (&scores)[2][2][4]) const {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float max = fmaxf(fmaxf(scores[n][0][2 * h], scores[n][0][2 * h + 1]),
                          fmaxf(scores[n][1][2 * h], scores[n][1][2 * h + 1]));
        max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, 1));
        max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, 2));
        if (lane % 4 == 0) shared.maxima[n][row_of(h)][warp] = max;
      }
    }
  }
  // Leaves the weights of the pages in shared memory; factors: of what was summed before each.
  __device__ void soften(const float (&scores)[2][2][4], float (&factors)[2][2]) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float4 m = *reinterpret_cast<const float4*>(shared.maxima[n][row_of(h)]);
        const float max = fmaxf(max_[h], fmaxf(fmaxf(m.x, m.y), fmaxf(m.z, m.w)));
        const float reference = reference_of(max);
        factors[n][h] = exp2_of(max_[h] - reference);
        max_[h] = max;
        float pairs[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float x = exp2_of(scores[n][i][2 * h] - reference);
          const float y = exp2_of(scores[n][i][2 * h + 1] - reference);
          pairs[i] = x + y;
          const int key = n * kPageKeys + warp * 16 + i * 8 + lane % 4 * 2;
          *reinterpret_cast<uint32_t*>(shared.weights + row_of(h) * kWeightStride + key * 2) =
              pack_halves(x, y);
        }
        shared.fours[n][row_of(h)][lane % 4][warp] = pairs[0] + pairs[1];
      }
    }
  }
  // What has been summed, relative to the n-th page's largest score, and the sum of its weights.
  __device__ void begin_sums(int n, const float (&factors)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      sum[h] = add_weights(sum[h], factors[h],
                           *reinterpret_cast<const float4*>(shared.fours[n][row_of(h)][lane % 4]));
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      for (int e = 0; e < 4; ++e) sums[i][e] = __fmul_rn(sums[i][e], factors[e / 2]);
    }
  }
  // Where the lane reads the weights of the n-th page for the products.
  __device__ uint32_t weights_of(int n) const {
    return address_in_shared(shared.weights) + n * kPageKeys * 2 + lane % 16 * kWeightStride +
           lane / 16 * 16;
  }

  const R ring;
  Shared& shared;
  int folded;  // spans in `all`
  bool folds;  // the run began with the row's first span
  uint32_t q[kSteps][4];
  Newest<kDim, kType> newest;
  float max_[2], sum[2], sums[kTiles][4];        // of the span
  float all_max[2], all_sum[2], all[kTiles][4];  // of the spans before it
};

#endif

}  // namespace lowbit::cuda

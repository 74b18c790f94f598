// The work of attention_few where sequences decode and a KV head has up to 8 query heads: rows of
// the products are keys, and dimensions of values, and their columns are queries, so that half as
// many products and registers do. The sums are those of few_worker_sm90.cuh, to the bit.
#pragma once

#include "lowbit/runtime/cuda/few_newest_sm90.cuh"
#include "lowbit/runtime/cuda/few_results_sm90.cuh"

namespace lowbit::cuda {

constexpr int kNarrowRows = 8;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What the warps tell each other of two pages.
template <int kDim>
struct DecodeScores {
  static constexpr int kStride = 2 * kPageKeys * 2 + 16;  // bytes, of a row of weights

  alignas(16) float maxima[2][kNarrowRows][4];    // of each warp's keys
  alignas(16) float fours[2][kNarrowRows][4][4];  // of keys 2i, 2i + 1 and 8 behind; of each warp
  alignas(16) uint8_t weights[kNarrowRows * kStride];
  float newest[2][kDim];
};

// A lane holds scores of keys lane / 4 and 8 behind, and values of dimensions lane / 4 of its
// tiles, each of rows 2 * (lane % 4) and the next.
template <int kHeadDim, CacheType kPages>
class DecodeWorker : RowResults<kHeadDim> {
  using Base = RowResults<kHeadDim>;
  using Base::a, Base::units, Base::warp, Base::lane, Base::rows, Base::heads, Base::first_head;
  using Base::group, Base::kv_head_of, Base::part_of, Base::out_of, Base::slot_of;

 public:
  static constexpr int kDim = kHeadDim;
  static constexpr CacheType kType = kPages;
  static constexpr int kSteps = kDim / 16;         // of 16 dimensions
  static constexpr int kPairs = Base::kTiles / 2;  // of tiles
  using Shared = DecodeScores<kDim>;
  using R = Ring<kDim, kType>;
  using Products = PageProducts<kDim, kType>;

  __device__ DecodeWorker(const AttentionLaunch& launch, const Units& all_units, const R& pages,
                          Shared& memory)
      : Base(launch, all_units), ring(pages), shared(memory) {}

  __device__ void begin_row(const Cursor& c) {
    heads = rows = group();
    first_head = kv_head_of(c) * group();
    load_queries(c);
    newest.load(a, a.qkv + static_cast<int64_t>(c.queries.first) * a.dims.qkv_cols(), kv_head_of(c),
                c.queries.position, shared.newest);
    folds = c.span == c.first_span;
    folded = 0;
    clear(all, all_max, all_sum);
  }
  __device__ void begin_span() { clear(sums, max_, sum); }

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
    float scores[2][4] = {};
    const Products products{warp, lane};
    products.score_columns({ring.plane(0, at[0]), ring.plane(0, count == 2 ? at[1] : at[0])}, q,
                           scores);
    __syncwarp();
    for (int n = 0; n < count; ++n) {
      if (lane == 0) barrier_arrive(ring.freed(0, at[n]));
    }
    mask(c, c.page, scores[0]);
    if (count == 2) {
      mask(c, c.page + 1, scores[1]);
    } else {
      for (float& x : scores[1]) x = -INFINITY;
    }
    largest_of_warp(scores);
    computing_sync();
    float factors[2][2];
    soften(scores, factors);
    computing_sync();
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      if (n == count) break;
      barrier_wait(ring.arrived(1, at[n]), at[n].parity);
      begin_sums(n, factors[n]);
      products.add_value_columns(ring.plane(1, at[n]), weights_of(n), sums);
      __syncwarp();
      if (lane == 0) barrier_arrive(ring.freed(1, at[n]));
    }
  }

  __device__ void end_span(const Cursor& c) {
    float row_sums[2];
    for (int r = 0; r < 2; ++r) {  // over the four lanes that hold parts, as sum_of_row()
      row_sums[r] = sum[r] + __shfl_xor_sync(0xffffffffu, sum[r], 8);
      row_sums[r] += __shfl_xor_sync(0xffffffffu, row_sums[r], 16);
    }
    if (!folds) return store(c.unit, sums, max_, row_sums);
    ++folded;
    float2 w[2];
    for (int r = 0; r < 2; ++r) {
      RowSoftmax running = {all_max[r], all_sum[r]};
      w[r] = merge_spans(running, {max_[r], row_sums[r]});
      all_max[r] = running.max;
      all_sum[r] = running.sum;
    }
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      for (int e = 0; e < 4; ++e) all[i][e] = merged_value(all[i][e], sums[i][e], w[e % 2]);
    }
  }
  // Ends the row; `c` is at its last unit here, `count` of them. Writes the row, if it is complete.
  __device__ void end_row(const Cursor& c, int count) {
    const int spans = c.last_position() / kAttentionSpan + 1 - c.first_span;
    if (folds && folded == spans) return write_rows(c);
    if (folds) {
      const int first = c.unit - (count - 1);
      store(first, all, all_max, all_sum);
      for (int i = 1; i < folded; ++i) this->store_nothing(first + i);
    }
    if (this->arrives(c, count, spans)) this->merge(c, spans);
  }

 private:
  using Sums = float[kPairs][4];

  static __device__ void clear(Sums& values, float (&max)[2], float (&row_sums)[2]) {
    max[0] = max[1] = -INFINITY;
    row_sums[0] = row_sums[1] = 0;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      for (int e = 0; e < 4; ++e) values[i][e] = 0;
    }
  }
  __device__ int row_of(int r) const { return lane % 4 * 2 + r; }
  // Of values 0 and 1 of a pair of tiles (upper: 2 and 3).
  __device__ int dimension_of(int pair, int upper) const {
    return (warp + 4 * (2 * pair + upper)) * 8 + lane / 4;
  }

  // What the lane holds of row lane / 4 for the tensor cores, rotated and scaled.
  __device__ void load_queries(const Cursor& c) {
    constexpr int kEights = kDim / 8, kHalf = kEights / 2;
    const bool valid = lane / 4 < rows;
    const float* x = a.qkv + static_cast<int64_t>(c.queries.first) * a.dims.qkv_cols() +
                     (first_head + (valid ? lane / 4 : 0)) * kDim + lane % 4 * 2;
    const int64_t at = static_cast<int64_t>(c.queries.position) * (kDim / 2) + lane % 4 * 2;
    float2 v[kEights];
#pragma unroll
    for (int g = 0; g < kHalf; ++g) {
      const float2 low = *reinterpret_cast<const float2*>(x + g * 8);
      const float2 high = *reinterpret_cast<const float2*>(x + g * 8 + kDim / 2);
      const float2 cos = *reinterpret_cast<const float2*>(a.cos + at + g * 8);
      const float2 sin = *reinterpret_cast<const float2*>(a.sin + at + g * 8);
      const float2 first = rotate(low.x, high.x, cos.x, sin.x);
      const float2 second = rotate(low.y, high.y, cos.y, sin.y);
      v[g] = make_float2(first.x, second.x);
      v[g + kHalf] = make_float2(first.y, second.y);
    }
    if (kType == CacheType::kInt4) mix_fragment(v);
#pragma unroll
    for (int g = 0; g < kEights; ++g) {
      q[g / 2][g % 2] =
          !valid ? 0
                 : pack_halves(__fmul_rn(v[g].x, a.score_scale), __fmul_rn(v[g].y, a.score_scale));
    }
  }

  // Puts what is missing into a page that the sequence ends in; returns whether it was one.
  __device__ bool complete_page(const Cursor& c, int page, const Place& at) {
    if (page != c.queries.position / kPageKeys) return false;
    barrier_wait(ring.arrived(1, at), at.parity);
    constexpr int kBytes = is_coded(kType) ? R::kPlane : kPageKeys * kDim * 2;
    const int64_t place = page_of(a, c.queries.table, kv_head_of(c), page) * kBytes;
    const int row = c.queries.position % kPageKeys;
    newest.put(row, ring.plane(0, at), ring.plane(1, at),
               {static_cast<uint8_t*>(a.cache.keys) + place,
                static_cast<uint8_t*>(a.cache.values) + place},
               shared.newest);
    Products::clear_unwritten(row + 1, ring.plane(1, at));
    return true;
  }

  __device__ void mask(const Cursor& c, int page, float (&scores)[4]) const {
    const int first = page * kPageKeys, position = c.queries.position;
    const int from = first_key(a.dims, position);
    if (first + kPageKeys - 1 <= position && first >= from) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = first + warp * 16 + i / 2 * 8 + lane / 4;
      if (key < from || key > position) scores[i] = -INFINITY;
    }
  }
  __device__ void largest_of_warp(const float (&scores)[2][4]) const {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float max = fmaxf(scores[n][r], scores[n][2 + r]);
        for (int apart = 4; apart < 32; apart *= 2) {
          max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, apart));
        }
        if (lane < 4) shared.maxima[n][row_of(r)][warp] = max;
      }
    }
  }
  // Leaves the weights of the pages in shared memory; factors: of what was summed before each.
  __device__ void soften(const float (&scores)[2][4], float (&factors)[2][2]) {
    const int key = lane / 4, odd = key % 2, row = row_of(odd);  // the row that the lane writes
    uint8_t* weights = shared.weights + row * Shared::kStride + (warp * 16 + key - odd) * 2;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      float p[4], other[4];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float4 m = *reinterpret_cast<const float4*>(shared.maxima[n][row_of(r)]);
        const float max = fmaxf(max_[r], fmaxf(fmaxf(m.x, m.y), fmaxf(m.z, m.w)));
        const float reference = reference_of(max);
        factors[n][r] = exp2_of(max_[r] - reference);
        max_[r] = max;
        p[r] = exp2_of(scores[n][r] - reference);
        p[2 + r] = exp2_of(scores[n][2 + r] - reference);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) other[i] = __shfl_xor_sync(0xffffffffu, p[i], 4);
      // Of the lane's row: its own two keys and their neighbours'.
      const float2 low = odd == 0 ? make_float2(p[0], other[0]) : make_float2(other[1], p[1]);
      const float2 high = odd == 0 ? make_float2(p[2], other[2]) : make_float2(other[3], p[3]);
      auto* pairs = reinterpret_cast<uint32_t*>(weights + n * kPageKeys * 2);
      pairs[0] = pack_halves(low.x, low.y);
      pairs[4] = pack_halves(high.x, high.y);
      shared.fours[n][row][key / 2][warp] = (low.x + low.y) + (high.x + high.y);
    }
  }
  // What has been summed, relative to the n-th page's largest score, and the sum of its weights.
  __device__ void begin_sums(int n, const float (&factors)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] = add_weights(sum[r], factors[r],
                           *reinterpret_cast<const float4*>(shared.fours[n][row_of(r)][lane / 8]));
    }
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      for (int e = 0; e < 4; ++e) sums[i][e] = __fmul_rn(sums[i][e], factors[e % 2]);
    }
  }
  // Where the lane reads the weights of the n-th page for the products.
  __device__ uint32_t weights_of(int n) const {
    return address_in_shared(shared.weights) + n * kPageKeys * 2 + lane % 8 * Shared::kStride +
           lane / 8 * 16;
  }

  __device__ void store(int unit, const Sums& values, const float (&max)[2],
                        const float (&row_sums)[2]) const {
    float* slot = slot_of(unit);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = row_of(r);
      if (row >= rows) continue;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        slot[row * kDim + dimension_of(i, 0)] = values[i][r];
        slot[row * kDim + dimension_of(i, 1)] = values[i][2 + r];
      }
      if (warp == 0 && lane < 4) {
        reinterpret_cast<float2*>(slot + unit_rows(a) * kDim)[row] =
            make_float2(max[r], row_sums[r]);
      }
    }
  }
  __device__ void write_rows(const Cursor& c) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = row_of(r);
      if (row >= rows) continue;
      float* out = out_of(c, row);
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        out[dimension_of(i, 0)] = __fdiv_rn(all[i][r], all_sum[r]);
        out[dimension_of(i, 1)] = __fdiv_rn(all[i][2 + r], all_sum[r]);
      }
    }
  }

  const R ring;
  Shared& shared;
  int folded;  // spans in `all`
  bool folds;  // the run began with the row's first span
  uint32_t q[kSteps][2];
  Newest<kDim, kType> newest;
  float max_[2], sum[2];  // of the span
  Sums sums;
  float all_max[2], all_sum[2];  // of the spans before it
  Sums all;
};

#endif

}  // namespace lowbit::cuda

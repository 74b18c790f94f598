// Attention of few queries of a sequence over many keys, by tensor cores: decoding, verifying
// guesses, short chunks. See attention.cuh for what is computed.
//
// Work       A unit is up to 16 rows (neighbouring queries x query heads of one KV head) and a span
//            of 256 keys. All units of the step, in order, are cut into as many runs as there are
//            blocks of threads, so that all finish together. One warp asks for pages of keys and
//            values, which come through a ring in shared memory; of two pages at a time each of
//            four others scores 16 keys, and sums a quarter of the values' dimensions.
// Merging    A block merges its spans as long as they begin with the sequence's first; what else it
//            has goes to the workspace, and the last block to finish a row merges that.
#include <algorithm>

#include "lowbit/runtime/cuda/attention.cuh"
#include "lowbit/runtime/cuda/attention_units.cuh"
#include "lowbit/runtime/cuda/elementwise.cuh"
#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/mma.cuh"
#include "lowbit/runtime/cuda/page_copies.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = kUnitThreads;

// Where a page is in the ring, and the parity of its barriers.
struct Place {
  int stage = 0;
  uint32_t parity = 0;
};

// Stages for pages of keys and of values, swizzled as page_copies.cuh says.
template <int kDim>
struct Ring {
  static constexpr int kParts = (kDim + 63) / 64;
  static constexpr int kPlane = kParts * kPartBytes;
  static constexpr int kMostStages = 12 / kParts;
  uint32_t memory, barriers;
  int stages;

  // which: 0 keys, 1 values
  __device__ uint32_t plane(int which, const Place& at) const {
    return memory + (at.stage * 2 + which) * kPlane;
  }
  __device__ uint32_t arrived(int which, const Place& at) const {
    return barriers + 8 * (which * kMostStages + at.stage);
  }
  __device__ uint32_t freed(const Place& at) const { return arrived(2, at); }
  __device__ Place next(const Place& at) const {
    if (at.stage + 1 < stages) return {at.stage + 1, at.parity};
    return {0, at.parity ^ 1};
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kComputing = 128;  // threads; those behind them copy
constexpr int kRows = kUnitRows;
constexpr int kWeightStride = 2 * kPageKeys * 2 + 16;  // bytes, of a row of two pages
constexpr int kMergeLoads = 16;                        // spans that a thread asks for at once

__device__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ void load_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
// The threads that compute wait for each other.
__device__ void computing_sync() { asm volatile("bar.sync 1, %0;" ::"n"(kComputing) : "memory"); }
template <typename T>
__device__ void store_shared(uint32_t address, T value) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(value) : "memory");
}

// What the warps tell each other of two pages.
struct SharedScores {
  alignas(16) float maxima[2][kRows][4];    // of each warp's keys
  alignas(16) float fours[2][kRows][4][4];  // of each lane of four, each warp: its sum of weights
  alignas(16) uint8_t weights[kRows * kWeightStride];
};

template <int kDim, bool kRotates>
class Worker {
 public:
  using R = Ring<kDim>;
  static constexpr int kSteps = kDim / 16;           // of 16 dimensions
  static constexpr int kTiles = (kDim / 8 + 3) / 4;  // of 8 dimensions, of a warp

  __device__ Worker(const AttentionLaunch& launch, const Units& all, const R& pages,
                    SharedScores& memory)
      : a(launch), units(all), ring(pages), shared(memory) {
    warp = static_cast<int>(threadIdx.x) / 32;
    lane = static_cast<int>(threadIdx.x) % 32;
  }

  __device__ void begin_row(const Cursor& c) {
    heads = min(row_heads(a.dims), group() - part_of(c) * row_heads(a.dims));
    first_head = kv_head_of(c) * group() + part_of(c) * row_heads(a.dims);
    rows = heads * c.queries.count;
    load_queries(c);
    if (kRotates) load_newest(c);
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
    score(ring.plane(0, at[0]), ring.plane(0, count == 2 ? at[1] : at[0]), scores);
    mask(c, c.page, scores[0]);
    if (count == 2) {
      mask(c, c.page + 1, scores[1]);
    } else {
      for (float& x : scores[1][0]) x = -INFINITY;
      for (float& x : scores[1][1]) x = -INFINITY;
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
      sum_values(ring.plane(1, at[n]), n, factors[n]);
      __syncwarp();
      if (lane == 0) barrier_arrive(ring.freed(at[n]));
    }
  }

  // Ends the unit of `c`, of which `last` says whether it is the row's last here.
  __device__ void end_span(const Cursor& c) {
    const float row_sums[2] = {sum_of_row(sum[0]), sum_of_row(sum[1])};
    if (!folds) return store(c.unit, sums, max_, row_sums);
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
    if (folds && folded == spans) return write_all(c);
    if (folds) {
      const int first = c.unit - (count - 1);
      store(first, all, all_max, all_sum);
      for (int i = 1; i < folded; ++i) store_nothing(first + i);
    }
    if (arrives(c, count, spans)) merge(c, spans);
  }

 private:
  __device__ int group() const { return a.dims.heads / a.dims.kv_heads; }
  __device__ int parts() const { return units.pairs / a.dims.kv_heads; }
  __device__ int kv_head_of(const Cursor& c) const { return c.pair / parts(); }
  __device__ int part_of(const Cursor& c) const { return c.pair % parts(); }
  // Byte at which a value of a key of a page stands.
  static __device__ int place_in_page(int key, int d) {
    return d / 64 * kPartBytes + key * 128 + (d % 64 / 8 ^ key % 8) * 16 + d % 8 * 2;
  }
  __device__ int row_of(int half) const { return lane / 4 + half * 8; }
  __device__ int tile_of(int i) const { return warp + 4 * i; }
  __device__ int position_of(const Cursor& c, int row) const {
    return c.queries.position + min(row / heads, c.queries.count - 1);
  }
  __device__ int head_of(int row) const { return first_head + row % heads; }

  // The rows of the queries that a lane holds for the tensor cores, scaled.
  __device__ void load_queries(const Cursor& c) {
    constexpr int kGroups = kDim / 16;  // of 8 dimensions, of half a head
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(h);
      const bool valid = row < rows;
      const int token = c.queries.first + (valid ? row / heads : 0);
      const float* x = a.qkv + static_cast<int64_t>(token) * a.dims.qkv_cols() +
                       (valid ? head_of(row) : first_head) * kDim + lane % 4 * 2;
      const int64_t at = static_cast<int64_t>(c.queries.position) * (kDim / 2) + lane % 4 * 2;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        float2 low = *reinterpret_cast<const float2*>(x + g * 8);
        float2 high = *reinterpret_cast<const float2*>(x + g * 8 + kDim / 2);
        if (kRotates) {
          const float2 cos = *reinterpret_cast<const float2*>(a.cos + at + g * 8);
          const float2 sin = *reinterpret_cast<const float2*>(a.sin + at + g * 8);
          const float2 first = rotate(low.x, high.x, cos.x, sin.x);
          const float2 second = rotate(low.y, high.y, cos.y, sin.y);
          low = make_float2(first.x, second.x);
          high = make_float2(first.y, second.y);
        }
        set_query(g, h, valid ? low : make_float2(0, 0));
        set_query(g + kGroups, h, valid ? high : make_float2(0, 0));
      }
    }
  }
  __device__ void set_query(int g, int h, const float2& v) {
    q[g / 2][g % 2 * 2 + h] =
        pack_halves(__fmul_rn(v.x, a.score_scale), __fmul_rn(v.y, a.score_scale));
  }

  // The newest key, rotated, and value: a pair for each of the first threads.
  __device__ void load_newest(const Cursor& c) {
    constexpr int kHalf = kDim / 2;
    const int thread = static_cast<int>(threadIdx.x);
    const float* token = a.qkv + static_cast<int64_t>(c.queries.first) * a.dims.qkv_cols();
    const int64_t at = static_cast<int64_t>(c.queries.position) * kHalf;
    if (thread < kHalf) {
      const float* key = token + (a.dims.heads + kv_head_of(c)) * kDim + thread;
      const float* value = key + a.dims.kv_heads * kDim;
      const float2 rotated = rotate(key[0], key[kHalf], a.cos[at + thread], a.sin[at + thread]);
      new_key = pack_halves(rotated.x, rotated.y);
      new_value = pack_halves(value[0], value[kHalf]);
    }
  }
  // Puts them into the page, and into the cache for later steps.
  __device__ void put_newest(const Cursor& c, const Place& at) const {
    constexpr int kHalf = kDim / 2;
    const int thread = static_cast<int>(threadIdx.x), row = c.queries.position % kPageKeys;
    if (thread >= kHalf) return;
    const auto put_shared = [&](uint32_t pair, uint32_t plane) {
      store_shared(plane + place_in_page(row, thread), static_cast<uint16_t>(pair));
      store_shared(plane + place_in_page(row, thread + kHalf), static_cast<uint16_t>(pair >> 16));
    };
    put_shared(new_key, ring.plane(0, at));
    put_shared(new_value, ring.plane(1, at));
    if (part_of(c) != 0) return;
    const auto put = [&](uint32_t pair, uint16_t* to) {
      to[thread] = static_cast<uint16_t>(pair);
      to[thread + kHalf] = static_cast<uint16_t>(pair >> 16);
    };
    const int page = c.queries.position / kPageKeys;
    const int64_t offset = place_of_keys(a, c.queries.table, kv_head_of(c), page) + row * kDim;
    put(new_key, static_cast<uint16_t*>(a.cache.keys) + offset);
    put(new_value, static_cast<uint16_t*>(a.cache.values) + offset);
  }

  // Puts what is missing into a page that the sequence ends in; returns whether it was one.
  __device__ bool complete_page(const Cursor& c, int page, const Place& at) const {
    const bool newest = kRotates && page == c.queries.position / kPageKeys;
    const int written = c.last_position() + 1 - page * kPageKeys;
    if (!newest && written >= kPageKeys) return false;
    barrier_wait(ring.arrived(1, at), at.parity);
    if (newest) put_newest(c, at);
    clear_unwritten(written, ring.plane(1, at));
    return true;
  }

  // The warp's 16 keys of both pages.
  __device__ void score(uint32_t first, uint32_t second, float (&scores)[2][2][4]) const {
    const int key = warp * 16 + lane % 8 + lane / 16 * 8, chunk = lane / 8 % 2 ^ lane % 8;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const uint32_t place = key * 128 + step / 4 * kPartBytes + (step % 4 * 2 ^ chunk) * 16;
      uint32_t b[2][4];
      load_matrices(b[0], first + place);
      load_matrices(b[1], second + place);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        multiply_halves(scores[n][0], q[step], b[n][0], b[n][1]);
        multiply_halves(scores[n][1], q[step], b[n][2], b[n][3]);
      }
    }
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
  // Values behind the last query may never have been written, and are multiplied by 0.
  __device__ void clear_unwritten(int written, uint32_t values) const {
    for (int i = written * 8 + static_cast<int>(threadIdx.x); i < kPageKeys * 8; i += kComputing) {
      for (int part = 0; part < R::kParts; ++part) {
        asm volatile(
            "st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(values + part * kPartBytes + i * 16),
            "r"(0)
            : "memory");
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
  // Adds the n-th page's weighted values.
  __device__ void sum_values(uint32_t values, int n, const float (&factors)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      sum[h] = add_weights(sum[h], factors[h],
                           *reinterpret_cast<const float4*>(shared.fours[n][row_of(h)][lane % 4]));
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      for (int e = 0; e < 4; ++e) sums[i][e] = __fmul_rn(sums[i][e], factors[e / 2]);
    }
    const uint32_t weights = address_in_shared(shared.weights) + n * kPageKeys * 2 +
                             lane % 16 * kWeightStride + lane / 16 * 16;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t p[2][4], b[kTiles][4];
      load_matrices(p[0], weights + half * 64);
      load_matrices(p[1], weights + half * 64 + 32);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        if (tile_of(i) * 8 >= kDim) break;
        load_transposed(b[i], values + place_in_page(half * 32 + lane, tile_of(i) * 8));
      }
#pragma unroll
      for (int step = 0; step < 2; ++step) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          if (tile_of(i) * 8 >= kDim) break;
          multiply_halves(sums[i], p[step], b[i][2 * step], b[i][2 * step + 1]);
        }
      }
    }
  }

  __device__ float* slot_of(int unit) const {
    return a.workspace + static_cast<int64_t>(unit) * unit_floats(a);
  }
  __device__ void store(int unit, const float (&values)[kTiles][4], const float (&max)[2],
                        const float (&row_sums)[2]) const {
    float* slot = slot_of(unit);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(h);
      if (row >= rows) continue;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        if (tile_of(i) * 8 >= kDim) break;
        *reinterpret_cast<float2*>(slot + row * kDim + tile_of(i) * 8 + lane % 4 * 2) =
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
  __device__ void write_all(const Cursor& c) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(h);
      if (row >= rows) continue;
      float* out = out_of(c, row) + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        if (tile_of(i) * 8 >= kDim) break;
        *reinterpret_cast<float2*>(out + tile_of(i) * 8) = make_float2(
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
  const R ring;
  SharedScores& shared;
  int warp, lane;
  int rows, heads, first_head;  // of the row block
  int folded;                   // spans in `all`
  bool folds;                   // the run began with the row's first span
  uint32_t q[kSteps][4];
  uint32_t new_key, new_value;
  float max_[2], sum[2], sums[kTiles][4];        // of the span
  float all_max[2], all_sum[2], all[kTiles][4];  // of the spans before it
};

// Asks for the pages of a run, as soon as they are in place; one warp.
template <int kDim, bool kRotates>
__device__ void copy_pages(const AttentionLaunch& a, const Units& units, const Ring<kDim>& ring,
                           Cursor c, const PageMaps& maps) {
  bool waited = false;
  Place at{0, 1};  // stages are free at first
  for (; !c.done(); c.next(units, 1), at = ring.next(at)) {
    const bool early = kRotates || (c.page + 1) * kPageKeys <= c.queries.cached;
    if (!early && !waited) {
      grid_wait();
      waited = true;
    }
    const int kv_head = c.pair / (units.pairs / a.dims.kv_heads);
    const int64_t block = a.step.tables[c.queries.table + c.page];
    const int64_t page = block * a.dims.kv_heads + kv_head;
    barrier_wait(ring.freed(at), at.parity);
    copy_page<kDim>(ring.plane(0, at), &maps.keys, page, ring.arrived(0, at));
    copy_page<kDim>(ring.plane(1, at), &maps.values, page, ring.arrived(1, at));
  }
  if (!waited) grid_wait();
}

#endif

// Grid: as many blocks as there are units or, at most, multiprocessors.
template <int kDim, bool kRotates>
__global__ void __launch_bounds__(kThreads, 1)
    attend_few(const __grid_constant__ AttentionLaunch a, const __grid_constant__ PageMaps maps,
               int stages) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using R = Ring<kDim>;
  extern __shared__ uint8_t memory[];
  __shared__ __align__(8) uint64_t barriers[3 * R::kMostStages];
  __shared__ SharedScores shared;
  grid_start();
  // The batch is in place before the first kernel of the step starts, as are earlier keys.
  const Units units(a);
  const int64_t all = units.all(), runs = gridDim.x, run = blockIdx.x;
  const int begin = static_cast<int>(run * all / runs);
  const int end = static_cast<int>((run + 1) * all / runs);
  if (begin >= end) return grid_wait();
  const R ring{(address_in_shared(memory) + 1023) / 1024 * 1024, address_in_shared(barriers),
               stages};
  if (threadIdx.x == kComputing) {
    for (int i = 0; i < stages; ++i) {
      barrier_init(ring.arrived(0, {i}), 1);
      barrier_init(ring.arrived(1, {i}), 1);
      barrier_init(ring.freed({i}), kComputing / 32);
    }
    barriers_ready();
  }
  Cursor c;
  c.start(units, begin, end);
  __syncthreads();
  if (threadIdx.x >= kComputing) return copy_pages<kDim, kRotates>(a, units, ring, c, maps);
  grid_wait();
  Worker<kDim, kRotates> work(a, units, ring, shared);
  int count = 0;  // units of the row so far
  bool new_row = true, new_span = true;
  Place at;
  while (!c.done()) {
    if (new_row) {
      work.begin_row(c);
      count = 0;
    }
    if (new_span) work.begin_span();
    const int pages = min(2, c.end_page - c.page);
    const Place places[2] = {at, ring.next(at)};
    work.add_pages(c, pages, places);
    at = pages == 2 ? ring.next(places[1]) : places[1];
    const Cursor here = c;
    new_span = c.next(units, pages);
    new_row = new_span && (c.done() || c.block != here.block || c.pair != here.pair);
    if (new_span) {
      ++count;
      work.end_span(here);
    }
    if (new_row) work.end_row(here, count);
  }
#endif
}

template <int kDim>
void launch_few(const AttentionLaunch& a, int64_t units, int processors, cudaStream_t stream) {
  // Blocks of one unit need no more stages than that has pages, and leave room for the next kernel.
  const int stages = units <= processors ? kSpanPages : Ring<kDim>::kMostStages;
  const size_t bytes = static_cast<size_t>(stages) * 2 * Ring<kDim>::kPlane + 1024;  // to align
  launch(a.rotates() ? attend_few<kDim, true> : attend_few<kDim, false>,
         dim3(static_cast<unsigned>(std::min<int64_t>(units, processors))), kThreads, bytes, stream,
         a, page_maps(a), stages);
}

// spans: of all query blocks, were there no window.
int64_t few_units(const AttentionLaunch& a, int64_t spans) {
  if (a.dims.window > 0) spans = int64_t{a.block_count} * window_spans(a);
  return spans * head_pairs(a.dims);
}

}  // namespace

bool tensor_cores_fit(const AttentionDims& dims) {
  static const bool known = [] {
    int major = 0, minor = 0;
    LOWBIT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    LOWBIT_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    return major == 9 && minor == 0;
  }();
  return known && (dims.head_dim == 64 || dims.head_dim == 128) &&
         dims.heads / dims.kv_heads <= 128;
}

int few_queries(const AttentionDims& dims) { return kUnitRows / row_heads(dims); }

int64_t few_workspace(const AttentionLaunch& a, int64_t spans) {
  return few_units(a, spans) * unit_floats(a);
}

void launch_attention_few(const AttentionLaunch& a, int64_t spans, int processors,
                          cudaStream_t stream) {
  const int64_t units = few_units(a, spans);
  if (a.dims.head_dim == 64) return launch_few<64>(a, units, processors, stream);
  launch_few<128>(a, units, processors, stream);
}

}  // namespace lowbit::cuda

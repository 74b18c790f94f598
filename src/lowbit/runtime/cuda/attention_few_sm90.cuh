// The kernel of attention_few, for pages of one type; what it does is said in
// attention_few_sm90.cu.
#pragma once

#include <algorithm>

#include "lowbit/runtime/cuda/elementwise.cuh"
#include "lowbit/runtime/cuda/few_results_sm90.cuh"
#include "lowbit/runtime/cuda/launch.cuh"

namespace lowbit::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kRows = kUnitRows;
constexpr int kWeightStride = 2 * kPageKeys * 2 + 16;  // bytes, of a row of two pages

template <typename T>
__device__ void store_shared(uint32_t address, T value) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(value) : "memory");
}

// What the warps tell each other of two pages.
template <int kDim, CacheType kType>
struct SharedScores {
  alignas(16) float maxima[2][kRows][4];    // of each warp's keys
  alignas(16) float fours[2][kRows][4][4];  // of each lane of four, each warp: its sum of weights
  alignas(16) uint8_t weights[kRows * kWeightStride];
  float newest[2][kDim];
};

// The newest key, rotated, and value, which a block whose kRotates puts into the page and the
// cache.
template <int kDim, CacheType kType>
class Newest {
 public:
  static constexpr int kHalf = kDim / 2;

  // A pair for each of the first threads; token: its row of q, k and v.
  __device__ void load(const AttentionLaunch& a, const float* token, int kv_head, int position,
                       float (&)[2][kDim]) {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread >= kHalf) return;
    const int64_t at = static_cast<int64_t>(position) * kHalf + thread;
    const float* from = token + (a.dims.heads + kv_head) * kDim + thread;
    const float* v = from + a.dims.kv_heads * kDim;
    const float2 rotated = rotate(from[0], from[kHalf], a.cos[at], a.sin[at]);
    key = pack_halves(rotated.x, rotated.y);
    value = pack_halves(v[0], v[kHalf]);
  }
  // keys, values: the page in shared memory. to[2]: in the cache, or null.
  __device__ void put(int row, uint32_t keys, uint32_t values, void* const (&to)[2],
                      const float (&)[2][kDim]) const {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread >= kHalf) return;
    put_pair(key, row, keys, to[0]);
    put_pair(value, row, values, to[1]);
  }

 private:
  __device__ void put_pair(uint32_t pair, int row, uint32_t plane, void* to) const {
    using Products = PageProducts<kDim, kType>;
    const int thread = static_cast<int>(threadIdx.x);
    const auto first = static_cast<uint16_t>(pair), second = static_cast<uint16_t>(pair >> 16);
    store_shared(plane + Products::place_in_page(row, thread), first);
    store_shared(plane + Products::place_in_page(row, thread + kHalf), second);
    if (to == nullptr) return;
    auto* halves = static_cast<uint16_t*>(to) + row * kDim + thread;
    halves[0] = first;
    halves[kHalf] = second;
  }

  uint32_t key, value;
};

// In few bits: a warp rounds the key, another the value.
template <int kDim, CacheType kType>
requires(is_coded(kType)) class Newest<kDim, kType> {
 public:
  static constexpr int kHalf = kDim / 2;

  __device__ void load(const AttentionLaunch& a, const float* token, int kv_head, int position,
                       float (&shared)[2][kDim]) {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kHalf) {
      const int64_t at = static_cast<int64_t>(position) * kHalf + thread;
      const float* from = token + (a.dims.heads + kv_head) * kDim + thread;
      const float* v = from + a.dims.kv_heads * kDim;
      const float2 rotated = rotate(from[0], from[kHalf], a.cos[at], a.sin[at]);
      shared[0][thread] = rotated.x;
      shared[0][thread + kHalf] = rotated.y;
      shared[1][thread] = v[0];
      shared[1][thread + kHalf] = v[kHalf];
    }
    computing_sync();
  }
  __device__ void put(int row, uint32_t keys, uint32_t values, void* const (&to)[2],
                      const float (&shared)[2][kDim]) const {
    const int which = static_cast<int>(threadIdx.x) / 32;
    if (which >= 2) return;
    const uint32_t plane = which == 0 ? keys : values;
    auto* page = static_cast<uint8_t*>(which == 0 ? to[0] : to[1]);
    round_row(
        kType, shared[which], kDim, which, row,
        [&](int byte, uint32_t code) {
          asm volatile("st.shared.u8 [%0], %1;" ::"r"(plane + byte), "r"(code) : "memory");
          if (page != nullptr) page[byte] = static_cast<uint8_t>(code);
        },
        [&](int byte, uint32_t bits, int bytes) {
          const int at = kPageKeys * row_bytes(kType, kDim) + byte;
          if (bytes == 2) {
            store_shared(plane + at, static_cast<uint16_t>(bits));
            if (page != nullptr)
              *reinterpret_cast<uint16_t*>(page + at) = static_cast<uint16_t>(bits);
          } else {
            asm volatile("st.shared.u32 [%0], %1;" ::"r"(plane + at), "r"(bits) : "memory");
            if (page != nullptr) *reinterpret_cast<uint32_t*>(page + at) = bits;
          }
        });
  }
};

template <int kDim, bool kRotates, CacheType kType>
class Worker : RowResults<kDim> {
  using Base = RowResults<kDim>;
  using Base::a, Base::units, Base::warp, Base::lane, Base::rows, Base::heads, Base::first_head;
  using Base::group, Base::kv_head_of, Base::part_of, Base::row_of, Base::head_of;
  using Products = PageProducts<kDim, kType>;
  using Shared = SharedScores<kDim, kType>;

 public:
  using R = Ring<kDim, kType>;
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
      if (lane == 0) barrier_arrive(ring.freed(at[n]));
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

// Asks for a page of keys (which: 0) or values, by all lanes of a warp. page: which of the layer's.
template <int kDim, CacheType kType>
__device__ void ask_for(const AttentionLaunch& a, const PageMaps& maps,
                        const Ring<kDim, kType>& ring, int which, const Place& at, int64_t page) {
  const uint32_t to = ring.plane(which, at), barrier = ring.arrived(which, at);
  if constexpr (is_coded(kType)) {
    constexpr int kBytes = Ring<kDim, kType>::kPlane;
    const void* from = which == 0 ? a.cache.keys : a.cache.values;
    if (elected())
      copy_codes(to, static_cast<const uint8_t*>(from) + page * kBytes, kBytes, barrier);
  } else {
    copy_page<kDim>(to, which == 0 ? &maps.keys : &maps.values, page, barrier);
  }
}

// Asks for the pages of a run, as soon as they are in place; one warp.
template <int kDim, bool kRotates, CacheType kType>
__device__ void copy_pages(const AttentionLaunch& a, const Units& units,
                           const Ring<kDim, kType>& ring, Cursor c, const PageMaps& maps) {
  bool waited = false;
  Place at{0, 1};  // stages are free at first
  for (; !c.done(); c.next(units, 1), at = ring.next(at)) {
    const bool early = kRotates || (c.page + 1) * kPageKeys <= c.queries.cached;
    if (!early && !waited) {
      grid_wait();
      waited = true;
    }
    const int kv_head = c.pair / (units.pairs / a.dims.kv_heads);
    const int64_t page = page_of(a, c.queries.table, kv_head, c.page);
    barrier_wait(ring.freed(at), at.parity);
    ask_for(a, maps, ring, 0, at, page);
    ask_for(a, maps, ring, 1, at, page);
  }
  if (!waited) grid_wait();
}

#endif

// Grid: as many blocks as there are units or, at most, multiprocessors.
template <int kDim, bool kRotates, CacheType kType>
__global__ void __launch_bounds__(kUnitThreads, is_coded(kType) ? 2 : 1)
    attend_few(const __grid_constant__ AttentionLaunch a, const __grid_constant__ PageMaps maps,
               int stages) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using R = Ring<kDim, kType>;
  extern __shared__ uint8_t memory[];
  __shared__ __align__(8) uint64_t barriers[3 * R::kMostStages];
  __shared__ SharedScores<kDim, kType> shared;
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
  if (threadIdx.x >= kComputing) {
    return copy_pages<kDim, kRotates>(a, units, ring, c, maps);
  }
  grid_wait();
  Worker<kDim, kRotates, kType> work(a, units, ring, shared);
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

// Pages of codes need more instructions for their bytes: two blocks keep a multiprocessor busy.
template <int kDim, CacheType kType>
void launch_few(const AttentionLaunch& a, int64_t units, int processors, cudaStream_t stream) {
  using R = Ring<kDim, kType>;
  // Blocks of one unit need no more stages than that has pages, and leave room for the next kernel.
  const int64_t blocks = is_coded(kType) ? 2 * processors : processors;
  const int stages = units <= blocks ? std::min(kSpanPages, R::kMostStages) : R::kMostStages;
  const size_t bytes = static_cast<size_t>(stages) * 2 * R::kPlane + 1024;  // to align
  launch(a.rotates() ? attend_few<kDim, true, kType> : attend_few<kDim, false, kType>,
         dim3(static_cast<unsigned>(std::min<int64_t>(units, blocks))), kUnitThreads, bytes, stream,
         a, is_coded(kType) ? PageMaps{} : page_maps(a), stages);
}
template <CacheType kType>
void launch_few(const AttentionLaunch& a, int64_t units, int processors, cudaStream_t stream) {
  if (a.dims.head_dim == 64) return launch_few<64, kType>(a, units, processors, stream);
  launch_few<128, kType>(a, units, processors, stream);
}

}  // namespace lowbit::cuda

// Causal attention over the paged cache, for prefill and decode alike.
//
// Work      A block of threads takes up to 16 rows (neighbouring queries x the query heads of one KV
//           head) and one page of 64 keys, eight pages (a span), or all of them: as few tokens need
//           more blocks than they have rows, the keys are split, and the last block of a head to
//           finish merges. Keys of earlier steps are asked for before the queries are ready.
// Numerics  fp32. A page has its own maximum and sums, in the order of its keys; pages merge in
//           order into their span, spans in order into the result. That is the same whatever a
//           block takes, so a query's result does not depend on the batch or on how it was cut.
#include <algorithm>

#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/mma.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kPage = 64;
constexpr int kSpanPages = 8;
constexpr int kMostRows = 16;

int row_heads(const AttentionDims& dims) {  // query heads of a block, all of one KV head
  return std::min(dims.heads / dims.kv_heads, kMostRows);
}

// Shared memory of a block, in bytes; keys are padded so that neighbours lie in other banks.
struct SharedLayout {
  int key_stride, keys, values, queries, scores, sums, bytes;

  __host__ __device__ SharedLayout(int dim, int rows, bool half) {
    const int element = half ? 2 : 4, row_bytes = (dim * element + 15) / 16 * 16;
    key_stride = row_bytes + 16;
    keys = kPage * key_stride;
    values = kPage * row_bytes;
    queries = rows * ((dim + 3) / 4 * 16);
    scores = rows * kPage * 4;
    sums = rows * dim * 4;
    bytes = keys + values + queries + scores + 3 * sums;
  }
  __device__ int value_stride() const { return key_stride - 16; }
};

// Maximum and sum of the weights seen so far, of one row.
struct Softmax {
  float max, sum;
};

// Weights by which a running result and another one are multiplied when they merge.
__device__ float2 merge(Softmax& running, const Softmax& other) {
  const float max = fmaxf(running.max, other.max);
  const float a = running.max == -INFINITY ? 0.f : expf(running.max - max);
  const float b = other.max == -INFINITY ? 0.f : expf(other.max - max);
  running = {max, fmaf(running.sum, a, other.sum * b)};
  return make_float2(a, b);
}
__device__ float merged(float running, float other, const float2& weights) {
  return fmaf(running, weights.x, other * weights.y);
}

template <bool kHalf>
struct Loader {
  using Element = std::conditional_t<kHalf, uint16_t, float>;
  static __device__ float value(Element element) {
    if constexpr (kHalf) {
      return half_to_float(element);
    } else {
      return element;
    }
  }
};

// Copies a page of one head: 64 rows of `dim` values.
template <bool kHalf>
__device__ void copy_page(const typename Loader<kHalf>::Element* from, int dim, uint8_t* to,
                          int stride) {
  using Element = typename Loader<kHalf>::Element;
  const int row_bytes = dim * static_cast<int>(sizeof(Element));
  if (row_bytes % 16 == 0) {
    const int words = row_bytes / 16;
    for (int i = static_cast<int>(threadIdx.x); i < kPage * words; i += kThreads) {
      copy16_async(to + i / words * stride + i % words * 16,
                   reinterpret_cast<const uint8_t*>(from) + i * 16);
    }
  } else {
    for (int i = static_cast<int>(threadIdx.x); i < kPage * dim; i += kThreads) {
      *reinterpret_cast<Element*>(to + i / dim * stride + i % dim * static_cast<int>(sizeof(Element))) = from[i];
    }
  }
}

// Four sums, of every fourth dimension, added at the end.
template <bool kHalf>
__device__ float dot_key(const float* q, const uint8_t* key, int dim) {
  using Element = typename Loader<kHalf>::Element;
  float sums[4] = {};
  int i = 0;
#pragma unroll 4
  for (; i + 4 <= dim; i += 4) {
    const float4 a = *reinterpret_cast<const float4*>(q + i);
    float4 b;
    if constexpr (kHalf) {
      const uint2 words = *reinterpret_cast<const uint2*>(key + i * 2);
      b = make_float4(half_to_float(static_cast<uint16_t>(words.x)),
                      half_to_float(static_cast<uint16_t>(words.x >> 16)),
                      half_to_float(static_cast<uint16_t>(words.y)),
                      half_to_float(static_cast<uint16_t>(words.y >> 16)));
    } else {
      b = *reinterpret_cast<const float4*>(key + i * 4);
    }
    sums[0] = fmaf(a.x, b.x, sums[0]);
    sums[1] = fmaf(a.y, b.y, sums[1]);
    sums[2] = fmaf(a.z, b.z, sums[2]);
    sums[3] = fmaf(a.w, b.w, sums[3]);
  }
  for (; i < dim; ++i) {
    sums[0] = fmaf(q[i], Loader<kHalf>::value(reinterpret_cast<const Element*>(key)[i]), sums[0]);
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// What one block works on.
struct Task {
  int rows, heads;  // rows = queries x heads; row r is query r / heads, head r % heads
  int first_token, first_head, kv_head;
  int first_position;  // of the first token; the others follow
  int table;           // where the sequence's block table starts
  int dim, q_stride;

  __device__ int token(int row) const { return first_token + row / heads; }
  __device__ int head(int row) const { return first_head + row % heads; }
  __device__ int position(int row) const { return first_position + row / heads; }
};

// Scores of a page, their softmax, and its weighted sum of values.
template <bool kHalf>
class Page {
 public:
  __device__ Page(const AttentionLaunch& a, const Task& task, uint8_t* memory)
      : a_(a), task_(task), layout_(task.dim, a.most_queries * task.heads, kHalf) {
    keys_ = memory;
    values_ = keys_ + layout_.keys;
    queries_ = reinterpret_cast<float*>(values_ + layout_.values);
    scores_ = queries_ + layout_.queries / 4;
    sums = scores_ + layout_.scores / 4;
  }
  __device__ int row_floats() const { return layout_.sums / 4; }

  __device__ void load_queries() {
    const int dim = task_.dim, stride = query_stride();
    for (int i = static_cast<int>(threadIdx.x); i < task_.rows * dim; i += kThreads) {
      const int row = i / dim;
      queries_[row * stride + i % dim] =
          a_.qkv[static_cast<int64_t>(task_.token(row)) * task_.q_stride + task_.head(row) * dim +
                 i % dim];
    }
  }

  // Asks for the keys and values of a page.
  __device__ void fetch(int page) {
    using Element = typename Loader<kHalf>::Element;
    const int64_t block = a_.step.tables[task_.table + page];
    const int64_t at = (block * a_.dims.kv_heads + task_.kv_head) * kPage * task_.dim;
    copy_page<kHalf>(static_cast<const Element*>(a_.cache.keys) + at, task_.dim, keys_,
                     layout_.key_stride);
    copies_commit();
    copy_page<kHalf>(static_cast<const Element*>(a_.cache.values) + at, task_.dim, values_,
                     layout_.value_stride());
    copies_commit();
  }
  // Leaves the sums of the page that was fetched in `sums` and its softmax in `softmax`; both are
  // whole after the next barrier.
  __device__ void compute(int page, Softmax* softmax) {
    copies_wait<1>();
    __syncthreads();
    score(page);
    __syncthreads();
    soften(softmax);
    copies_wait<0>();
    __syncthreads();
    sum_values(page);
  }

  float* sums;  // [rows][dim]

 private:
  __device__ int query_stride() const { return (task_.dim + 3) / 4 * 4; }

  __device__ void score(int page) {
    const float scale = 1.f / sqrtf(static_cast<float>(task_.dim));
    for (int i = static_cast<int>(threadIdx.x); i < task_.rows * kPage; i += kThreads) {
      const int row = i / kPage, key = i % kPage;
      const int position = task_.position(row);
      const int first = a_.dims.window > 0 ? max(0, position + 1 - a_.dims.window) : 0;
      const int at = page * kPage + key;
      float value = -INFINITY;
      if (at >= first && at <= position) {
        value = dot_key<kHalf>(queries_ + row * query_stride(), keys_ + key * layout_.key_stride,
                               task_.dim) *
                scale;
      }
      scores_[i] = value;
    }
  }

  __device__ void soften(Softmax* softmax) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    for (int row = warp; row < task_.rows; row += kThreads / 32) {
      float* scores = scores_ + row * kPage;
      float max = fmaxf(scores[lane], scores[lane + 32]);
      for (int offset = 16; offset > 0; offset /= 2) {
        max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, offset));
      }
      float sum = 0;
      for (int i = lane; i < kPage; i += 32) {
        const float weight = scores[i] == -INFINITY ? 0.f : expf(scores[i] - max);
        scores[i] = weight;
        sum += weight;
      }
      for (int offset = 16; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      }
      if (lane == 0) softmax[row] = {max, sum};
    }
  }

  // A thread makes two neighbouring values. What was never written is never read: keys behind the
  // query are left out.
  __device__ void sum_values(int page) {
    using Element = typename Loader<kHalf>::Element;
    const int pairs = task_.dim / 2, stride = layout_.value_stride();
    for (int i = static_cast<int>(threadIdx.x); i < task_.rows * pairs; i += kThreads) {
      const int row = i / pairs, pair = i % pairs * 2;
      const float* weights = scores_ + row * kPage;
      const uint8_t* column = values_ + pair * static_cast<int>(sizeof(Element));
      const int keys = min(kPage, task_.position(row) + 1 - page * kPage);
      float first = 0, second = 0;
      const auto add = [&](float weight, int key) {
        const auto* value = reinterpret_cast<const Element*>(column + key * stride);
        first = fmaf(weight, Loader<kHalf>::value(value[0]), first);
        second = fmaf(weight, Loader<kHalf>::value(value[1]), second);
      };
      int key = 0;
#pragma unroll 4
      for (; key + 4 <= keys; key += 4) {
        const float4 four = *reinterpret_cast<const float4*>(weights + key);
        add(four.x, key);
        add(four.y, key + 1);
        add(four.z, key + 2);
        add(four.w, key + 3);
      }
      for (; key < keys; ++key) add(weights[key], key);
      sums[row * task_.dim + pair] = first;
      sums[row * task_.dim + pair + 1] = second;
    }
  }

  const AttentionLaunch& a_;
  const Task& task_;
  SharedLayout layout_;
  uint8_t *keys_, *values_;
  float *queries_, *scores_;
};

// Where partial results of a row lie: [token][head][slot] of dim sums, then maximum and sum.
__device__ float* slot_of(const AttentionLaunch& a, int slots, int token, int head, int slot) {
  const int64_t index = (static_cast<int64_t>(token) * a.dims.heads + head) * slots + slot;
  return a.workspace + index * (a.dims.head_dim + 2);
}

__host__ __device__ int slots_of(const AttentionLaunch& a) {
  if (a.split_keys == 0) return 1;
  const int pages = a.split_keys / kPage;
  return (a.pages + pages - 1) / pages;
}

// Merges the page's sums into `to`, both [rows][dim].
__device__ void merge_rows(const Task& task, const float* from, const Softmax* other, float* to,
                           const Softmax* running) {
  for (int i = static_cast<int>(threadIdx.x); i < task.rows * task.dim; i += kThreads) {
    Softmax copy = running[i / task.dim];
    to[i] = merged(to[i], from[i], merge(copy, other[i / task.dim]));
  }
}

__device__ void clear_rows(const Task& task, float* rows, Softmax* softmax) {
  for (int i = static_cast<int>(threadIdx.x); i < task.rows * task.dim; i += kThreads) rows[i] = 0;
  if (static_cast<int>(threadIdx.x) < task.rows) softmax[threadIdx.x] = {-INFINITY, 0};
}

__device__ void merge_into(const Task& task, float* from, Softmax* other, float* to,
                           Softmax* running) {
  __syncthreads();
  merge_rows(task, from, other, to, running);
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < task.rows) merge(running[threadIdx.x], other[threadIdx.x]);
  __syncthreads();
}

__device__ void write_rows(const AttentionLaunch& a, const Task& task, const float* rows,
                           const Softmax* softmax, int slot) {
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < task.rows * task.dim; i += kThreads) {
    const int row = i / task.dim, d = i % task.dim;
    const int token = task.token(row), head = task.head(row);
    if (a.split_keys == 0) {
      a.out[static_cast<int64_t>(token) * a.dims.heads * task.dim + head * task.dim + d] =
          rows[i] / softmax[row].sum;
    } else {
      float* to = slot_of(a, slots_of(a), token, head, slot);
      to[d] = rows[i];
      if (d == 0) {
        to[task.dim] = softmax[row].max;
        to[task.dim + 1] = softmax[row].sum;
      }
    }
  }
}

constexpr int kMergeSlots = 8;  // loaded at once

// Merges the slots of a row as one block would have; a warp takes a row.
__device__ void merge_slots(const AttentionLaunch& a, const Task& task, int row) {
  const int dim = task.dim, slot_pages = a.split_keys / kPage, position = task.position(row);
  const int first_page = a.dims.window > 0 ? max(0, position + 1 - a.dims.window) / kPage : 0;
  const int first = first_page / slot_pages, last = position / kPage / slot_pages;
  const int span_slots = kSpanPages / slot_pages, token = task.token(row), head = task.head(row);
  const float* from = slot_of(a, slots_of(a), token, head, 0);
  for (int d = static_cast<int>(threadIdx.x) % 32; d < dim; d += 32) {
    Softmax all = {-INFINITY, 0}, span = {-INFINITY, 0};
    float all_sum = 0, span_sum = 0;
    for (int batch = first; batch <= last; batch += kMergeSlots) {
      float values[kMergeSlots];
      Softmax softmax[kMergeSlots];
#pragma unroll
      for (int i = 0; i < kMergeSlots; ++i) {
        const float* slot = from + static_cast<int64_t>(min(batch + i, last)) * (dim + 2);
        values[i] = __ldcg(slot + d);
        softmax[i] = {__ldcg(slot + dim), __ldcg(slot + dim + 1)};
      }
#pragma unroll
      for (int i = 0; i < kMergeSlots; ++i) {
        if (batch + i > last) continue;
        span_sum = merged(span_sum, values[i], merge(span, softmax[i]));
        if ((batch + i + 1) % span_slots == 0 || batch + i == last) {
          all_sum = merged(all_sum, span_sum, merge(all, span));
          span = {-INFINITY, 0};
          span_sum = 0;
        }
      }
    }
    a.out[static_cast<int64_t>(token) * a.dims.heads * dim + head * dim + d] = all_sum / all.sum;
  }
}

// Whether this block is the last of `blocks` that arrive with the same query block and heads.
__device__ bool arrives_last(const AttentionLaunch& a, int blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t* count = a.arrivals + blockIdx.x * gridDim.y + blockIdx.y;
    last = atomicAdd(count, 1) == blocks - 1;
    if (last) *count = 0;  // for the next launch
    __threadfence();
  }
  __syncthreads();
  return last;
}

__device__ Task make_task(const AttentionLaunch& a, int heads_per_block, int head_parts) {
  const QueryBlock queries = a.blocks[blockIdx.x];
  const int group = a.dims.heads / a.dims.kv_heads;
  const int part = static_cast<int>(blockIdx.y) % head_parts;
  Task task;
  task.kv_head = static_cast<int>(blockIdx.y) / head_parts;
  task.heads = min(heads_per_block, group - part * heads_per_block);
  task.first_head = task.kv_head * group + part * heads_per_block;
  task.first_token = queries.first;
  task.first_position = a.step.positions[queries.first];
  task.table = queries.table;
  task.rows = queries.count * task.heads;
  task.dim = a.dims.head_dim;
  task.q_stride = a.dims.qkv_cols();
  return task;
}

// Grid: query blocks x (KV heads x parts of their query heads) x slots.
template <bool kHalf>
__global__ void __launch_bounds__(kThreads, 2)
    attend(const AttentionLaunch a, int heads_per_block, int head_parts) {
  extern __shared__ __align__(16) uint8_t memory[];
  __shared__ Softmax page_softmax[kMostRows], span_softmax[kMostRows], all_softmax[kMostRows];
  grid_start();
  // The batch is in place before the first kernel of the step starts, as are earlier keys.
  const Task task = make_task(a, heads_per_block, head_parts);
  const int cached = a.blocks[blockIdx.x].cached;
  const int first = a.dims.window > 0 ? max(0, task.first_position + 1 - a.dims.window) : 0;
  const int first_page = first / kPage;
  const int end_page = (task.first_position + (task.rows - 1) / task.heads) / kPage + 1;
  const int slot = static_cast<int>(blockIdx.z), slot_pages = a.split_keys / kPage;
  int page = first_page, end = end_page;
  if (a.split_keys > 0) {
    page = max(page, slot * slot_pages);
    end = min(end, (slot + 1) * slot_pages);
  }
  if (page >= end) return grid_wait();

  Page<kHalf> work(a, task, memory);
  float* span = work.sums + work.row_floats();
  float* all = span + work.row_floats();
  const bool early = (page + 1) * kPage <= cached;
  if (early) work.fetch(page);
  grid_wait();
  if (!early) work.fetch(page);
  work.load_queries();
  if (a.split_keys == kPage) {
    work.compute(page, page_softmax);
    write_rows(a, task, work.sums, page_softmax, slot);
  } else {
    clear_rows(task, span, span_softmax);
    clear_rows(task, all, all_softmax);
    for (; page < end; ++page) {
      work.compute(page, page_softmax);
      merge_into(task, work.sums, page_softmax, span, span_softmax);
      if (page + 1 < end) work.fetch(page + 1);
      if (a.split_keys == 0 && ((page + 1) % kSpanPages == 0 || page + 1 == end)) {
        merge_into(task, span, span_softmax, all, all_softmax);
        clear_rows(task, span, span_softmax);
      }
    }
    write_rows(a, task, a.split_keys == 0 ? all : span,
               a.split_keys == 0 ? all_softmax : span_softmax, slot);
  }
  if (a.split_keys == 0) return;
  const int slots = (end_page - 1) / slot_pages - first_page / slot_pages + 1;
  if (!arrives_last(a, slots)) return;
  for (int row = static_cast<int>(threadIdx.x) / 32; row < task.rows; row += kThreads / 32) {
    merge_slots(a, task, row);
  }
}

}  // namespace

int attention_queries(const AttentionDims& dims) {
  return std::max(1, kMostRows / row_heads(dims));
}

int64_t attention_workspace(const AttentionLaunch& launch) {
  if (launch.split_keys == 0) return 0;
  return static_cast<int64_t>(launch.step.tokens) * launch.dims.heads * slots_of(launch) *
         (launch.dims.head_dim + 2);
}

int64_t attention_shared_bytes(const AttentionDims& dims, int most_queries, bool half) {
  return SharedLayout(dims.head_dim, most_queries * row_heads(dims), half).bytes;
}

void launch_attention(const AttentionLaunch& a, cudaStream_t stream) {
  const int heads = row_heads(a.dims), group = a.dims.heads / a.dims.kv_heads;
  const int parts = (group + heads - 1) / heads;
  const dim3 grid(static_cast<unsigned>(a.block_count),
                  static_cast<unsigned>(a.dims.kv_heads * parts),
                  static_cast<unsigned>(slots_of(a)));
  const auto shared =
      static_cast<size_t>(attention_shared_bytes(a.dims, a.most_queries, a.cache.half));
  launch(a.cache.half ? attend<true> : attend<false>, grid, kThreads, shared, stream, a, heads,
         parts);
}

}  // namespace lowbit::cuda

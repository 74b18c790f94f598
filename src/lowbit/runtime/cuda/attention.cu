// Causal attention over the paged cache, for prefill and decode alike.
//
// Work      A block of threads takes up to 16 rows (neighbouring queries x the query heads of a KV
//           head) and one page of 64 keys, eight pages (a span), or all of them: as few tokens need
//           more blocks than they have rows, the keys are split, and the last block of a head to
//           finish merges. Keys of earlier steps are asked for before the queries are ready.
// Numerics  fp32. A page has its own maximum and sums, in the order of its keys; pages merge in
//           order into their span, spans in order into the result. That is the same whatever a
//           block takes, so a query's result does not depend on the batch or on how it was cut.
#include <algorithm>

#include "lowbit/runtime/cuda/elementwise.cuh"
#include "lowbit/runtime/cuda/kv_codes.cuh"
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
    const int merging = rows * 32 * 16;  // the weights of merge_slots
    if (keys + values < merging) values = merging - keys;
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
  if (row_bytes % 16 == 0 && kThreads % (row_bytes / 16) == 0) {
    const int words = row_bytes / 16, word = static_cast<int>(threadIdx.x) % words;
    const auto* source = reinterpret_cast<const uint8_t*>(from) + word * 16;
    to += word * 16;
    for (int row = static_cast<int>(threadIdx.x) / words; row < kPage; row += kThreads / words) {
      copy16_async(to + row * stride, source + row * row_bytes);
    }
  } else {
    for (int i = static_cast<int>(threadIdx.x); i < kPage * dim; i += kThreads) {
      *reinterpret_cast<Element*>(to + i / dim * stride +
                                  i % dim * static_cast<int>(sizeof(Element))) = from[i];
    }
  }
}

// Four values of a key.
template <bool kHalf>
__device__ float4 four_of(const uint8_t* key) {
  if constexpr (!kHalf) return *reinterpret_cast<const float4*>(key);
  const uint2 words = *reinterpret_cast<const uint2*>(key);
  return make_float4(half_to_float(static_cast<uint16_t>(words.x)),
                     half_to_float(static_cast<uint16_t>(words.x >> 16)),
                     half_to_float(static_cast<uint16_t>(words.y)),
                     half_to_float(static_cast<uint16_t>(words.y >> 16)));
}

__device__ void add_products(const float* q, const float4& key, float (&sums)[4]) {
  const float4 a = *reinterpret_cast<const float4*>(q);
  sums[0] = fmaf(a.x, key.x, sums[0]);
  sums[1] = fmaf(a.y, key.y, sums[1]);
  sums[2] = fmaf(a.z, key.z, sums[2]);
  sums[3] = fmaf(a.w, key.w, sums[3]);
}

// Four sums, of every fourth dimension, added at the end.
template <bool kHalf>
__device__ float dot_key(const float* q, const uint8_t* key, int dim) {
  using Element = typename Loader<kHalf>::Element;
  float sums[4] = {};
  int i = 0;
  if constexpr (kHalf) {
    // 16 bytes at once: neighbouring keys then lie in different banks.
#pragma unroll 4
    for (; i + 8 <= dim; i += 8) {
      const uint4 words = *reinterpret_cast<const uint4*>(key + i * 2);
      const auto* halves = reinterpret_cast<const uint8_t*>(&words);
      add_products(q + i, four_of<true>(halves), sums);
      add_products(q + i + 4, four_of<true>(halves + 8), sums);
    }
  }
#pragma unroll 4
  for (; i + 4 <= dim; i += 4) {
    add_products(q + i, four_of<kHalf>(key + i * static_cast<int>(sizeof(Element))), sums);
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

// Which page of the layer's keys, or values, is the task's.
__device__ int64_t page_of(const AttentionLaunch& a, const Task& task, int page) {
  const int64_t block = a.step.tables[task.table + page];
  return block * a.dims.kv_heads + task.kv_head;
}

// Widens the codes of a page of one head.
__device__ void widen_page(const AttentionLaunch& a, const Task& task, int which, int64_t page,
                           uint8_t* to, int stride) {
  const auto* from = static_cast<const uint8_t*>(which == 0 ? a.cache.keys : a.cache.values) +
                     page * page_bytes(a.cache.type, task.dim);
  for (int i = static_cast<int>(threadIdx.x); i < kPage * task.dim; i += kThreads) {
    const int key = i / task.dim, d = i % task.dim;
    reinterpret_cast<float*>(to + key * stride)[d] =
        value_of_code(a.cache.type, from, task.dim, which, key, d);
  }
}

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
    if (a_.rotates()) return load_and_rotate();
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
    if (is_coded(a_.cache.type)) {
      const int64_t index = page_of(a_, task_, page);
      widen_page(a_, task_, 0, index, keys_, layout_.key_stride);
      widen_page(a_, task_, 1, index, values_, layout_.value_stride());
      copies_commit();
      return copies_commit();
    }
    const int64_t at = page_of(a_, task_, page) * kPage * task_.dim;
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
    if (holds_newest(page)) {
      put_newest(new_key_, keys_, layout_.key_stride, a_.cache.keys);
      __syncthreads();
    }
    score(page);
    __syncthreads();
    soften(softmax);
    copies_wait<0>();
    __syncthreads();
    if (holds_newest(page)) {
      put_newest(new_value_, values_, layout_.value_stride(), a_.cache.values);
      __syncthreads();
    }
    sum_values(page);
  }

  float* sums;  // [rows][dim]

 private:
  using Element = typename Loader<kHalf>::Element;

  // Rotates the one query of the task, and takes the key and value of its token, a pair for each of
  // the first threads.
  __device__ void load_and_rotate() {
    const int half = task_.dim / 2, thread = static_cast<int>(threadIdx.x);
    const float* token = a_.qkv + static_cast<int64_t>(task_.first_token) * task_.q_stride;
    const float* cos = a_.cos + static_cast<int64_t>(task_.first_position) * half;
    const float* sin = a_.sin + static_cast<int64_t>(task_.first_position) * half;
    if (thread < half) {
      const float* key = token + (a_.dims.heads + task_.kv_head) * task_.dim + thread;
      const float* value = key + a_.dims.kv_heads * task_.dim;
      new_key_ = rotate(key[0], key[half], cos[thread], sin[thread]);
      new_value_ = make_float2(value[0], value[half]);
    }
    for (int i = thread; i < task_.rows * half; i += kThreads) {
      const int row = i / half, d = i % half;
      const float* x = token + task_.head(row) * task_.dim + d;
      const float2 rotated = rotate(x[0], x[half], cos[d], sin[d]);
      queries_[row * query_stride() + d] = rotated.x;
      queries_[row * query_stride() + d + half] = rotated.y;
    }
  }
  __device__ bool holds_newest(int page) const {
    return a_.rotates() && page == task_.first_position / kPage;
  }
  // Puts a pair of the newest key or value in the page, and in the cache for later steps.
  __device__ void put_newest(const float2& pair, uint8_t* rows, int stride, void* cache) const {
    const int half = task_.dim / 2, thread = static_cast<int>(threadIdx.x);
    if (thread >= half) return;
    const int at = task_.first_position % kPage;
    const Element first = to_element(pair.x), second = to_element(pair.y);
    auto* row = reinterpret_cast<Element*>(rows + at * stride);
    row[thread] = first;
    row[thread + half] = second;
    if (task_.first_head % (a_.dims.heads / a_.dims.kv_heads) != 0) return;  // another part does
    Element* stored = static_cast<Element*>(cache) +
                      page_of(a_, task_, task_.first_position / kPage) * kPage * task_.dim +
                      at * task_.dim;
    stored[thread] = first;
    stored[thread + half] = second;
  }
  static __device__ Element to_element(float value) {
    if constexpr (kHalf) {
      return float_to_half(value);
    } else {
      return value;
    }
  }

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
  float2 new_key_, new_value_;
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

constexpr int kMergeSlots = 32;  // one for each lane of a warp; whole spans
constexpr int kMergeLoads = 24;  // slots that a thread asks for at once

// What a slot's sums are multiplied by when they join those of its span; and, of the last slot of a
// span, the span's when they join the others (x < 0: not the last).
struct MergeWeights {
  float2 slot, span;
};

// The slots of a row.
struct SlotRange {
  int first, last, per_span;

  __device__ SlotRange(const AttentionLaunch& a, int position) {
    const int pages = a.split_keys / kPage;
    const int first_key = a.dims.window > 0 ? max(0, position + 1 - a.dims.window) : 0;
    first = first_key / kPage / pages;
    last = position / kPage / pages;
    per_span = kSpanPages / pages;
  }
};

// The weights of slots batch .. batch + 31 of a row, by one warp: the spans side by side, each slot
// after slot, then span after span.
__device__ void weigh_slots(const AttentionLaunch& a, const Task& task, int row, int batch,
                            MergeWeights* weights, Softmax& all) {
  const int lane = static_cast<int>(threadIdx.x) % 32, dim = task.dim;
  const SlotRange range(a, task.position(row));
  Softmax mine = {-INFINITY, 0};
  if (batch + lane >= range.first && batch + lane <= range.last) {
    const float* slot = slot_of(a, slots_of(a), task.token(row), task.head(row), batch + lane);
    mine = {__ldcg(slot + dim), __ldcg(slot + dim + 1)};
  }
  const int step = lane % range.per_span, base = lane - step;
  Softmax span = {-INFINITY, 0};
  MergeWeights w = {{}, make_float2(-1, 0)};
#pragma unroll 1
  for (int i = 0; i < range.per_span; ++i) {
    const Softmax one = {__shfl_sync(0xffffffffu, mine.max, base + i),
                         __shfl_sync(0xffffffffu, mine.sum, base + i)};
    if (batch + base + i < range.first || batch + base + i > range.last) continue;
    const float2 weight = merge(span, one);
    if (i == step) w.slot = weight;
  }
  Softmax all_now = all;
  __syncwarp();
#pragma unroll 1
  for (int first = 0; first < kMergeSlots && batch + first <= range.last; first += range.per_span) {
    const Softmax one = {__shfl_sync(0xffffffffu, span.max, first),
                         __shfl_sync(0xffffffffu, span.sum, first)};
    const int last = min(range.last - batch, first + range.per_span - 1);
    if (batch + last < range.first) continue;
    const float2 weight = merge(all_now, one);
    if (lane == last) w.span = weight;
  }
  weights[lane] = w;
  if (lane == 0) all = all_now;
}

// Adds a pair's values of slots `from` .. `from + count - 1` to its sums.
__device__ void merge_pair(const MergeWeights* weights, int count,
                           const float2 (&values)[kMergeLoads], float2& span, float2& all) {
#pragma unroll
  for (int k = 0; k < kMergeLoads; ++k) {
    if (k >= count) break;
    const MergeWeights w = weights[k];
    span = make_float2(merged(span.x, values[k].x, w.slot), merged(span.y, values[k].y, w.slot));
    if (w.span.x < 0) continue;
    all = make_float2(merged(all.x, span.x, w.span), merged(all.y, span.y, w.span));
    span = make_float2(0, 0);
  }
}

// Merges the slots of the block's rows as one block would have. all: [rows][dim] in `memory`, and
// the softmax of each row. Values are asked for before their weights are known: the way to them is
// most of the time.
__device__ void merge_slots(const AttentionLaunch& a, const Task& task, uint8_t* memory, float* all,
                            Softmax* all_softmax) {
  auto* weights = reinterpret_cast<MergeWeights*>(memory);  // [rows][kMergeSlots]
  const int warp = static_cast<int>(threadIdx.x) / 32, pairs = task.rows * task.dim / 2;
  clear_rows(task, all, all_softmax);
  const int first = SlotRange(a, task.position(0)).first / kMergeSlots * kMergeSlots;
  const int last = SlotRange(a, task.position(task.rows - 1)).last;
#pragma unroll 1
  for (int batch = first; batch <= last; batch += kMergeSlots) {
#pragma unroll 1
    for (int base = 0; base < pairs; base += kThreads) {
      const int i = 2 * min(base + static_cast<int>(threadIdx.x), pairs - 1), row = i / task.dim;
      const int d = i - row * task.dim;
      const SlotRange range(a, task.position(row));
      const int end = min(range.last, batch + kMergeSlots - 1);
      int from = max(range.first, batch);
      const float* slots = slot_of(a, slots_of(a), task.token(row), task.head(row), 0) + d;
      float2 values[kMergeLoads];
      const auto load = [&] {
#pragma unroll
        for (int k = 0; k < kMergeLoads; ++k) {
          const float* slot = slots + min(from + k, range.last) * (task.dim + 2);
          values[k] = __ldcg(reinterpret_cast<const float2*>(slot));
        }
      };
      load();
      if (base == 0) {
        __syncthreads();
        for (int r = warp; r < task.rows; r += kThreads / 32) {
          weigh_slots(a, task, r, batch, weights + r * kMergeSlots, all_softmax[r]);
        }
        __syncthreads();
      }
      if (base + static_cast<int>(threadIdx.x) >= pairs || from > end) continue;
      auto* sums = reinterpret_cast<float2*>(all + i);
      float2 span_sum = {}, all_sum = *sums;
      const MergeWeights* w = weights + row * kMergeSlots - batch;
      merge_pair(w + from, end + 1 - from, values, span_sum, all_sum);
      for (from += kMergeLoads; from <= end; from += kMergeLoads) {
        load();
        merge_pair(w + from, end + 1 - from, values, span_sum, all_sum);
      }
      *sums = all_sum;
      if (end < range.last) continue;
      const float sum = all_softmax[row].sum;
      *reinterpret_cast<float2*>(
          a.out + static_cast<int64_t>(task.token(row)) * a.dims.heads * task.dim +
          task.head(row) * task.dim + d) = make_float2(all_sum.x / sum, all_sum.y / sum);
    }
    __syncthreads();  // the weights are free again
  }
}

// Whether this block is the last of `blocks` that arrive with the same query block and heads.
__device__ bool arrives_last(const AttentionLaunch& a, int blocks) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t* count = a.arrivals + blockIdx.x * gridDim.y + blockIdx.y;
    int32_t before;
    asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(count)
                 : "memory");
    last = before == blocks - 1;
    if (last) *count = 0;  // for the next launch
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
  const bool early = a.rotates() || (page + 1) * kPage <= cached;
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
  merge_slots(a, task, memory, all, all_softmax);
}

}  // namespace

int attention_queries(const AttentionDims& dims) {
  return std::max(1, kMostRows / row_heads(dims));
}

bool attention_rotates(const AttentionDims& dims, CacheType type) {
  return dims.head_dim <= 2 * kThreads && !is_coded(type);
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
  const bool half = a.cache.type == CacheType::kF16;
  const auto shared = static_cast<size_t>(attention_shared_bytes(a.dims, a.most_queries, half));
  launch(half ? attend<true> : attend<false>, grid, kThreads, shared, stream, a, heads, parts);
}

}  // namespace lowbit::cuda

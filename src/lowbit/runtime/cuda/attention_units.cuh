// How attention_few cuts a step into units: up to 16 rows (neighbouring queries x query heads of
// one KV head) and a span of keys.
#pragma once

#include "lowbit/runtime/cuda/attention.cuh"

namespace lowbit::cuda {

constexpr int kUnitRows = 16;
constexpr int kUnitThreads = 160;  // that take part in Units::block_of

__host__ __device__ inline int row_heads(const AttentionDims& dims) {
  const int group = dims.heads / dims.kv_heads;
  return group < kUnitRows ? group : kUnitRows;
}
// Pairs of a KV head and a part of its query heads.
__host__ __device__ inline int head_pairs(const AttentionDims& dims) {
  const int heads = row_heads(dims);
  return dims.kv_heads * ((dims.heads / dims.kv_heads + heads - 1) / heads);
}
// Of a unit, at most.
__host__ __device__ inline int unit_rows(const AttentionLaunch& a) {
  return row_heads(a.dims) * a.most_queries;
}
// Floats of a unit in the workspace: the rows' sums, then their softmax.
__host__ __device__ inline int unit_floats(const AttentionLaunch& a) {
  return (unit_rows(a) * (a.dims.head_dim + 2) + 3) / 4 * 4;
}

// Spans that a query block of a window touches, at most.
__host__ __device__ inline int window_spans(const AttentionLaunch& a) {
  return (a.dims.window + a.most_queries - 2) / kAttentionSpan + 2;
}

// Where the units of a step are: those of a query block together, head pair after head pair.
struct Units {
  const AttentionLaunch& a;
  int pairs;
  int uniform;  // spans of every query block; 0: they differ

  __device__ explicit Units(const AttentionLaunch& launch)
      : a(launch),
        pairs(head_pairs(launch.dims)),
        uniform(launch.dims.window > 0 ? window_spans(launch) : 0) {}
  __device__ int before(int block) const {
    return pairs * (uniform > 0 ? block * uniform : a.blocks[block].spans_before);
  }
  __device__ int all() const { return before(a.block_count); }
  // The query block of a unit. All threads of a block take part.
  __device__ int block_of(int unit) const {
    if (a.block_count == 1) return 0;
    int found = 0;
    for (int base = 0; base < a.block_count; base += kUnitThreads) {
      const int block = base + static_cast<int>(threadIdx.x);
      found += __syncthreads_count(block < a.block_count && before(block) <= unit);
    }
    return found - 1;
  }
};

// A place in a run of units: a page of one of them.
struct Cursor {
  int unit, last_unit;
  int block, pair, span;           // span: of the sequence
  int first_span, spans;           // of the query block; first_span + spans may be more than it has
  int page, first_page, end_page;  // of the unit
  QueryBlock queries;

  __device__ void start(const Units& units, int first, int end) {
    unit = first;
    last_unit = end - 1;
    block = units.block_of(first);
    load_block(units);
    const int place = first - units.before(block);
    pair = place / spans;
    span = first_span + place % spans;
    load_pages(units);
    if (page >= end_page) advance(units);
  }
  __device__ bool done() const { return unit > last_unit; }
  __device__ int last_position() const { return queries.position + queries.count - 1; }

  // Moves on by pages of its unit; returns whether it stands in another unit then, or none.
  __device__ bool next(const Units& units, int pages) {
    page += pages;
    if (page < end_page) return false;
    advance(units);
    return true;
  }

 private:
  __device__ void load_block(const Units& units) {
    queries = units.a.blocks[block];
    first_span = first_key(units.a.dims, queries.position) / kAttentionSpan;
    spans = units.uniform > 0 ? units.uniform : last_position() / kAttentionSpan + 1;
  }
  __device__ void load_pages(const Units& units) {
    const int sees = first_key(units.a.dims, queries.position) / kPageKeys;
    page = first_page = max(sees, span * kSpanPages);
    end_page = min(last_position() / kPageKeys + 1, (span + 1) * kSpanPages);
  }
  __device__ void advance(const Units& units) {
    do {
      if (++unit > last_unit) return;
      if (++span == first_span + spans) {
        if (++pair == units.pairs) {
          pair = 0;
          ++block;
          load_block(units);
        }
        span = first_span;
      }
      load_pages(units);
    } while (page >= end_page);
  }
};

}  // namespace lowbit::cuda

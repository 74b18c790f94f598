// Attention over the blocks of a KV cache, with online softmax block by block (FlashAttention,
// arXiv 2205.14135): the blocks' borders are positions, so the order of every sum depends on a
// query's position alone. Over a vector type V of V::kLanes floats. In an anonymous namespace: see
// kernels.h.
//
// A block's keys are widened to fp32 and transposed once for all queries and heads of the task, its
// values widened: then scores (lanes are keys) and outputs (lanes are columns) both are products of
// a few rows with a few registers, whose sums stay in registers.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cpu/attention_keys.h"
#include "lowbit/runtime/cpu/attention_pages.h"
#include "lowbit/runtime/cpu/kernels.h"

namespace lowbit::cpu {
namespace {

// Parts of a task's scratch. A row is one head of one query.
struct Scratch {
  float* q;        // [rows][head_dim], scaled
  float* out;      // [rows][dim], not yet divided by sum
  float* weights;  // [rows][64]: exp(score - max) in this block, 0 for keys out of sight
  float* decay;    // [rows]: what earlier blocks' sums are multiplied by
  float* max;      // [rows]
  float* sum;      // [rows]
  float* keys;     // [head_dim][64]
  float* values;   // [64][dim]
  int64_t dim;     // head_dim, padded

  static int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }
  Scratch(float* at, int64_t rows, int64_t head_dim) : dim(padded(head_dim)) {
    q = at;
    out = q + rows * dim;
    weights = out + rows * dim;
    decay = weights + rows * kKeys;
    max = decay + padded(rows);
    sum = max + padded(rows);
    keys = sum + padded(rows);
    values = keys + head_dim * kKeys;
  }
  static int64_t size(int64_t rows, int64_t head_dim) {
    const int64_t dim = padded(head_dim);
    return 2 * rows * dim + rows * kKeys + 3 * padded(rows) + 2 * kKeys * dim;
  }
};

// Scores of R rows from `row` on and of N registers of keys from `key` on.
template <typename V, int R, int N>
inline void score(const AttentionTask& task, const Scratch& scratch, int64_t row, int64_t key) {
  const int64_t dim = task.head_dim;
  const float *q = scratch.q + row * scratch.dim, *keys = scratch.keys + key;
  typename V::Float sums[R][N];
  for (int i = 0; i < R * N; ++i) sums[i / N][i % N] = V::float_zero();
  for (int64_t i = 0; i < dim; ++i) {
    typename V::Float k[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) k[n] = V::load_floats(keys + i * kKeys + n * V::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto value = V::broadcast(q + r * scratch.dim + i);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[r][n] = V::multiply_add(value, k[n], sums[r][n]);
    }
  }
  for (int i = 0; i < R * N; ++i) {
    V::store_floats(scratch.weights + (row + i / N) * kKeys + key + i % N * V::kLanes,
                    sums[i / N][i % N]);
  }
}

// A row's scores to weights; updates its max, sum and decay. `last`: scores there are, a multiple
// of V::kLanes.
template <typename V>
inline void soften(const Scratch& scratch, int64_t row, Range keys, int64_t last) {
  float* weights = scratch.weights + row * kKeys;
  const auto hidden = V::floats(-__builtin_inff());
  auto max = hidden;
  for (int64_t key = 0; key < last; key += V::kLanes) {
    const auto s =
        V::keep(hidden, V::load_floats(weights + key), keys.first - key, keys.last - key);
    V::store_floats(weights + key, s);
    max = V::max(max, s);
  }
  if (keys.first >= keys.last) {
    for (int64_t key = 0; key < last; ++key) weights[key] = 0;
    scratch.decay[row] = 1;
    return;
  }
  const float old = scratch.max[row], block_max = V::max_lanes(max);
  const float now = block_max > old ? block_max : old;
  auto sum = V::float_zero();
  for (int64_t key = 0; key < last; key += V::kLanes) {
    const auto weight = V::exp(V::subtract(V::load_floats(weights + key), V::floats(now)));
    V::store_floats(weights + key, weight);
    sum = V::add(sum, weight);
  }
  scratch.decay[row] = V::first(V::exp(V::floats(old - now)));
  scratch.max[row] = now;
  scratch.sum[row] = scratch.sum[row] * scratch.decay[row] + V::sum_lanes(sum);
}

// out = out * decay + weights * values for R rows and N registers of columns from `column` on.
template <typename V, int R, int N>
inline void mix(const Scratch& scratch, int64_t row, int64_t column, Range keys) {
  const int64_t dim = scratch.dim;
  float* out = scratch.out + row * dim + column;
  typename V::Float sums[R][N];
  for (int i = 0; i < R * N; ++i) {
    sums[i / N][i % N] = V::multiply(V::load_floats(out + i / N * dim + i % N * V::kLanes),
                                     V::broadcast(scratch.decay + row + i / N));
  }
  for (int64_t key = keys.first; key < keys.last; ++key) {
    typename V::Float v[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      v[n] = V::load_floats(scratch.values + key * dim + column + n * V::kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto weight = V::broadcast(scratch.weights + (row + r) * kKeys + key);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[r][n] = V::multiply_add(weight, v[n], sums[r][n]);
    }
  }
  for (int i = 0; i < R * N; ++i) {
    V::store_floats(out + i / N * dim + i % N * V::kLanes, sums[i / N][i % N]);
  }
}

template <typename V, int R, int N>
inline void mix_columns(const Scratch& scratch, int64_t row, Range keys) {
  int64_t column = 0;
  for (; column + N * V::kLanes <= scratch.dim; column += N * V::kLanes) {
    mix<V, R, N>(scratch, row, column, keys);
  }
  for (; column < scratch.dim; column += V::kLanes) mix<V, R, 1>(scratch, row, column, keys);
}

// R neighbouring rows, N registers of keys or columns at a time.
template <typename V, int R, int N>
void attend_rows(const AttentionTask& task, const Scratch& scratch, int64_t row, int64_t block) {
  Range used{kKeys, 0};
  for (int64_t i = row; i < row + R; ++i) {
    const Range keys = visible(task, task.position + i / task.heads, block);
    if (keys.first >= keys.last) continue;
    used = {smaller(used.first, keys.first), larger(used.last, keys.last)};
  }
  if (used.first >= used.last) return;
  constexpr int64_t kStep = N * V::kLanes;
  const int64_t last = (used.last + kStep - 1) / kStep * kStep;
  for (int64_t key = 0; key < last; key += kStep) score<V, R, N>(task, scratch, row, key);
  for (int64_t i = row; i < row + R; ++i) {
    soften<V>(scratch, i, visible(task, task.position + i / task.heads, block), last);
  }
  mix_columns<V, R, N>(scratch, row, used);
}

inline void start(const AttentionTask& task, const Scratch& scratch) {
  for (int64_t row = 0; row < task.queries * task.heads; ++row) {
    const float* q = task.q + row / task.heads * task.q_stride + row % task.heads * task.head_dim;
    for (int64_t i = 0; i < scratch.dim; ++i) {
      scratch.q[row * scratch.dim + i] = i < task.head_dim ? q[i] * task.scale : 0.f;
      scratch.out[row * scratch.dim + i] = 0;
    }
    scratch.max[row] = -__builtin_inff();
    scratch.sum[row] = 0;
  }
}

inline void finish(const AttentionTask& task, const Scratch& scratch) {
  for (int64_t row = 0; row < task.queries * task.heads; ++row) {
    float* out = task.out + row / task.heads * task.out_stride + row % task.heads * task.head_dim;
    const float inverse = 1.f / scratch.sum[row];
    for (int64_t i = 0; i < task.head_dim; ++i)
      out[i] = scratch.out[row * scratch.dim + i] * inverse;
  }
}

// One instantiation for every type of cache: the products above are then inlined where they are
// called, which halves the time.
template <typename V>
void attend(const AttentionTask& task) {
  const int64_t rows = task.queries * task.heads;
  const Scratch scratch(task.scratch, rows, task.head_dim);
  start(task, scratch);
  const int64_t last_position = task.position + task.queries - 1;
  const auto used_of = [&](int64_t block) {
    return Range{visible(task, task.position, block).first,
                 visible(task, last_position, block).last};
  };
  for (int64_t block = oldest(task, task.position) / kKeys; block <= last_position / kKeys;
       ++block) {
    const Range used = used_of(block);
    const bool more = block < last_position / kKeys;
    for_page(task, task.values, block, [&](const auto& page) { page.prefetch(used); });
    for_page(task, task.keys, block,
             [&](const auto& page) { load_keys(page, used, scratch.keys); });
    if (more) {
      for_page(task, task.keys, block + 1,
               [&](const auto& page) { page.prefetch(used_of(block + 1)); });
    }
    for_page(task, task.values, block,
             [&](const auto& page) { load_values(page, used, scratch.dim, scratch.values); });
    int64_t row = 0;
    for (; row + 6 <= rows; row += 6) attend_rows<V, 6, V::kWide>(task, scratch, row, block);
    for (; row + 3 <= rows; row += 3) attend_rows<V, 3, 4>(task, scratch, row, block);
    for (; row < rows; ++row) attend_rows<V, 1, 4>(task, scratch, row, block);
  }
  finish(task, scratch);
}

}  // namespace
}  // namespace lowbit::cpu

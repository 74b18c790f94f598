// Attention over the blocks of a KV cache, with online softmax block by block (FlashAttention,
// arXiv 2205.14135): the blocks' borders are positions, so the order of every sum depends on a
// query's position alone.
//
// A block's keys are widened to fp32 once for all queries and heads of the task, then its values.
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

constexpr int64_t kKeys = 64;  // of a block

int64_t padded(int64_t head_dim) { return (head_dim + 7) / 8 * 8; }

// Parts of a task's scratch. A row is one head of one query.
struct Scratch {
  float* q;        // [rows][dim], scaled
  float* out;      // [rows][dim], not yet divided by sum
  float* weights;  // [rows][64]: exp(score - max) in this block
  float* decay;    // [rows]: what earlier blocks' sums are multiplied by
  float* max;      // [rows]
  float* sum;      // [rows]
  float* block;    // [64][dim]: keys, then values
  int64_t dim;     // head_dim, padded

  Scratch(float* at, int64_t rows, int64_t head_dim) : dim(padded(head_dim)) {
    const int64_t rounded = padded(rows);
    q = at;
    out = q + rows * dim;
    weights = out + rows * dim;
    decay = weights + rows * kKeys;
    max = decay + rounded;
    sum = max + rounded;
    block = sum + rounded;
  }
  static int64_t size(int64_t rows, int64_t head_dim) {
    return 2 * rows * padded(head_dim) + rows * kKeys + 3 * padded(rows) + kKeys * padded(head_dim);
  }
};

// Keys [first, last) of a block, as fp32 rows padded with zeros.
void widen(const AttentionTask& task, const void* base, int64_t block, Range keys,
           const Scratch& scratch) {
  const int64_t start = task.block_table[block] * task.block_stride;
  for (int64_t key = keys.first; key < keys.last; ++key) {
    float* out = scratch.block + key * scratch.dim;
    const int64_t from = start + key * task.head_dim;
    int64_t i = 0;
    if (task.half) {
      const uint16_t* in = static_cast<const uint16_t*>(base) + from;
      for (; i + 8 <= task.head_dim; i += 8) {
        const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i));
        _mm256_store_ps(out + i, _mm256_cvtph_ps(half));
      }
      for (; i < task.head_dim; ++i) {
        out[i] = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(in[i])));
      }
    } else {
      const float* in = static_cast<const float*>(base) + from;
      for (; i < task.head_dim; ++i) out[i] = in[i];
    }
    for (; i < scratch.dim; ++i) out[i] = 0;
  }
}

// Position of the first key that the query at `position` sees.
int64_t oldest(const AttentionTask& task, int64_t position) {
  return task.window > 0 && position >= task.window ? position + 1 - task.window : 0;
}

int64_t clamp(int64_t key) { return key < 0 ? 0 : key > kKeys ? kKeys : key; }

// The part of a block that the query at `position` sees; none if first >= last.
Range visible(const AttentionTask& task, int64_t position, int64_t block) {
  const int64_t start = block * kKeys;
  return {clamp(oldest(task, position) - start), clamp(position + 1 - start)};
}

// Scores of 8 keys from `key` on.
inline __m256 score(const float* q, const float* keys, int64_t dim) {
  __m256 sums[8];
  for (int j = 0; j < 8; ++j) sums[j] = _mm256_setzero_ps();
  for (int64_t i = 0; i < dim; i += 8) {
    const __m256 v = _mm256_load_ps(q + i);
    for (int j = 0; j < 8; ++j) {
      sums[j] = _mm256_fmadd_ps(v, _mm256_load_ps(keys + j * dim + i), sums[j]);
    }
  }
  return sum_each(sums);
}

// Weights of the visible keys; updates the row's max, sum and decay.
void score_block(const Scratch& scratch, int64_t row, Range keys) {
  const __m256 hidden = _mm256_set1_ps(-__builtin_inff());
  float* weights = scratch.weights + row * kKeys;
  const int64_t first = keys.first / 8 * 8;
  __m256 max = hidden;
  for (int64_t key = first; key < keys.last; key += 8) {
    __m256 s = score(scratch.q + row * scratch.dim, scratch.block + key * scratch.dim, scratch.dim);
    const int64_t before = keys.first > key ? keys.first - key : 0;
    const int64_t end = keys.last - key < 8 ? keys.last - key : 8;
    const __m256i seen = _mm256_andnot_si256(lane_mask(before), lane_mask(end));
    s = _mm256_blendv_ps(hidden, s, _mm256_castsi256_ps(seen));
    _mm256_store_ps(weights + key, s);
    max = _mm256_max_ps(max, s);
  }
  const float old = scratch.max[row], block_max = max_lanes(max);
  const float now = block_max > old ? block_max : old;
  __m256 sum = _mm256_setzero_ps();
  for (int64_t key = first; key < keys.last; key += 8) {
    const __m256 weight = exp8(_mm256_sub_ps(_mm256_load_ps(weights + key), _mm256_set1_ps(now)));
    _mm256_store_ps(weights + key, weight);
    sum = _mm256_add_ps(sum, weight);
  }
  scratch.decay[row] = _mm256_cvtss_f32(exp8(_mm256_set1_ps(old - now)));
  scratch.max[row] = now;
  scratch.sum[row] = scratch.sum[row] * scratch.decay[row] + sum_lanes(sum);
}

// out = out * decay + weights * values for N registers of columns.
template <int N>
inline void add_values(const float* weights, float decay, const float* values, int64_t dim,
                       Range keys, float* out) {
  __m256 sums[N];
  for (int n = 0; n < N; ++n) {
    sums[n] = _mm256_mul_ps(_mm256_load_ps(out + n * 8), _mm256_set1_ps(decay));
  }
  for (int64_t key = keys.first; key < keys.last; ++key) {
    const __m256 weight = _mm256_broadcast_ss(weights + key);
    const float* value = values + key * dim;
    for (int n = 0; n < N; ++n) {
      sums[n] = _mm256_fmadd_ps(weight, _mm256_load_ps(value + n * 8), sums[n]);
    }
  }
  for (int n = 0; n < N; ++n) _mm256_store_ps(out + n * 8, sums[n]);
}

void mix_block(const Scratch& scratch, int64_t row, Range keys) {
  const float* weights = scratch.weights + row * kKeys;
  const float decay = scratch.decay[row];
  const int64_t dim = scratch.dim;
  float* out = scratch.out + row * dim;
  int64_t i = 0;
  for (; i + 64 <= dim; i += 64) {
    add_values<8>(weights, decay, scratch.block + i, dim, keys, out + i);
  }
  for (; i + 32 <= dim; i += 32) {
    add_values<4>(weights, decay, scratch.block + i, dim, keys, out + i);
  }
  for (; i < dim; i += 8) {
    add_values<1>(weights, decay, scratch.block + i, dim, keys, out + i);
  }
}

void start(const AttentionTask& task, const Scratch& scratch) {
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

void finish(const AttentionTask& task, const Scratch& scratch) {
  for (int64_t row = 0; row < task.queries * task.heads; ++row) {
    float* out = task.out + row / task.heads * task.out_stride + row % task.heads * task.head_dim;
    const float inverse = 1.f / scratch.sum[row];
    for (int64_t i = 0; i < task.head_dim; ++i)
      out[i] = scratch.out[row * scratch.dim + i] * inverse;
  }
}

}  // namespace

namespace avx2 {

void attention(const AttentionTask& task) {
  const int64_t rows = task.queries * task.heads;
  const Scratch scratch(task.scratch, rows, task.head_dim);
  start(task, scratch);
  const int64_t last_position = task.position + task.queries - 1;
  for (int64_t block = oldest(task, task.position) / kKeys; block <= last_position / kKeys;
       ++block) {
    const Range used{visible(task, task.position, block).first,
                     visible(task, last_position, block).last};
    const auto each_row = [&](auto body) {
      for (int64_t row = 0; row < rows; ++row) {
        const Range keys = visible(task, task.position + row / task.heads, block);
        if (keys.first < keys.last) body(scratch, row, keys);
      }
    };
    widen(task, task.keys, block, used, scratch);
    each_row(score_block);
    widen(task, task.values, block, used, scratch);
    each_row(mix_block);
  }
  finish(task, scratch);
}

int64_t attention_scratch(int64_t queries, int64_t heads, int64_t head_dim) {
  return Scratch::size(queries * heads, head_dim);
}

}  // namespace avx2
}  // namespace lowbit::cpu

#include "lowbit/quantize/block_attention.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/vector_math.h"
#include "lowbit/runtime/cpu/fit_kernels.h"

namespace lowbit {

namespace {

constexpr int64_t kStrip = 128;  // queries at a time

// Softmax of one row of scores over the keys [first, last); the others become 0.
void softmax_row(float* scores, int64_t first, int64_t last, int64_t keys, float scale) {
  std::fill_n(scores, first, 0.f);
  std::fill(scores + last, scores + keys, 0.f);
  cpu::fit_kernels().softmax(scores + first, last - first, scale);
}

// Some queries of one head of one sequence, and the keys that any of them sees.
struct Strip {
  int64_t first;  // query
  int64_t queries;
  int64_t first_key;
  int64_t keys;  // from first_key to the last query
};

Strip strip_at(const AttentionBatch& batch, int64_t first) {
  const int64_t queries = std::min(kStrip, batch.length - first);
  const int64_t window = batch.shape.sliding_window;
  const int64_t first_key = window > 0 ? std::max<int64_t>(0, first - window + 1) : 0;
  return {first, queries, first_key, first + queries - first_key};
}

}  // namespace

struct BlockAttention::Worker {
  cpu::Gemm gemm;
  std::vector<float> probabilities;  // [queries][keys]
  std::vector<float> gradients;      // the same, of the scores

  // Probabilities of a strip, from q and k at their sequence's first row.
  void score(const AttentionBatch& batch, const Strip& strip, const float* q, const float* k) {
    const AttentionShape& shape = batch.shape;
    const int64_t q_stride = shape.q_cols(), kv_stride = shape.kv_cols();
    probabilities.resize(static_cast<size_t>(kStrip * batch.length));
    gemm.multiply(strip.queries, strip.keys, shape.head_dim,
                  cpu::rows_of(q + strip.first * q_stride, q_stride),
                  cpu::transposed(k + strip.first_key * kv_stride, kv_stride), probabilities.data(),
                  strip.keys);
    const float scale = 1.f / std::sqrt(static_cast<float>(shape.head_dim));
    for (int64_t i = 0; i < strip.queries; ++i) {
      const int64_t query = strip.first + i, window = shape.sliding_window;
      const int64_t oldest = window > 0 ? std::max<int64_t>(0, query - window + 1) : 0;
      softmax_row(probabilities.data() + i * strip.keys, oldest - strip.first_key,
                  query + 1 - strip.first_key, strip.keys, scale);
    }
  }

  // gradients = dL/d(q k^T) of a strip, given its probabilities.
  void score_gradients(const AttentionBatch& batch, const Strip& strip, const float* v,
                       const float* out, const float* dout) {
    const int64_t dim = batch.shape.head_dim;
    const int64_t q_stride = batch.shape.q_cols(), kv_stride = batch.shape.kv_cols();
    const float scale = 1.f / std::sqrt(static_cast<float>(dim));
    gradients.resize(static_cast<size_t>(kStrip * batch.length));
    gemm.multiply(
        strip.queries, strip.keys, dim, cpu::rows_of(dout + strip.first * q_stride, q_stride),
        cpu::transposed(v + strip.first_key * kv_stride, kv_stride), gradients.data(), strip.keys);
    for (int64_t i = 0; i < strip.queries; ++i) {
      const float* out_row = out + (strip.first + i) * q_stride;
      const float* dout_row = dout + (strip.first + i) * q_stride;
      const float dot = sum_of(dim, [&](int64_t d) { return out_row[d] * dout_row[d]; });
      float* row = gradients.data() + i * strip.keys;
      const float* p = probabilities.data() + i * strip.keys;
      for (int64_t j = 0; j < strip.keys; ++j) row[j] = p[j] * (row[j] - dot) * scale;
    }
  }
};

BlockAttention::BlockAttention(ThreadPool& pool) : pool_(pool) {
  for (int i = 0; i < pool.size(); ++i) workers_.push_back(std::make_unique<Worker>());
}
BlockAttention::~BlockAttention() = default;
BlockAttention::BlockAttention(BlockAttention&&) noexcept = default;

void BlockAttention::forward(const AttentionBatch& batch, const float* q, const float* k,
                             const float* v, float* out) {
  const AttentionShape& shape = batch.shape;
  const int64_t dim = shape.head_dim, q_stride = shape.q_cols(), kv_stride = shape.kv_cols();
  // A task is one strip; those with the most keys come first.
  const int64_t strips = (batch.length + kStrip - 1) / kStrip;
  pool_.parallel_for(batch.sequences * shape.heads * strips, [&](int64_t task, int thread) {
    Worker& worker = *workers_[static_cast<size_t>(thread)];
    const int64_t all_heads = batch.sequences * shape.heads;
    const int64_t first = (strips - 1 - task / all_heads) * kStrip;
    const int64_t head = task % shape.heads;
    const int64_t first_row = task % all_heads / shape.heads * batch.length;
    const int64_t at = first_row * q_stride + head * dim;
    const int64_t kv_head = head / (shape.heads / shape.kv_heads);
    const int64_t kv_at = first_row * kv_stride + kv_head * dim;
    const Strip strip = strip_at(batch, first);
    worker.score(batch, strip, q + at, k + kv_at);
    worker.gemm.multiply(strip.queries, dim, strip.keys,
                         cpu::rows_of(worker.probabilities.data(), strip.keys),
                         cpu::rows_of(v + kv_at + strip.first_key * kv_stride, kv_stride),
                         out + at + first * q_stride, q_stride);
  });
}

// One task has all query heads of a KV head, so that only it adds to their dk and dv.
void BlockAttention::backward(const AttentionBatch& batch, const float* q, const float* k,
                              const float* v, const float* out, const float* dout, float* dq,
                              float* dk, float* dv) {
  const AttentionShape& shape = batch.shape;
  const int64_t dim = shape.head_dim, q_stride = shape.q_cols(), kv_stride = shape.kv_cols();
  const int64_t group = shape.heads / shape.kv_heads;
  pool_.parallel_for(batch.sequences * shape.kv_heads, [&](int64_t task, int thread) {
    Worker& worker = *workers_[static_cast<size_t>(thread)];
    const int64_t kv_head = task % shape.kv_heads, first_row = task / shape.kv_heads * batch.length;
    const int64_t kv_at = first_row * kv_stride + kv_head * dim;
    for (int64_t row = 0; row < batch.length; ++row) {
      std::fill_n(dk + kv_at + row * kv_stride, dim, 0.f);
      std::fill_n(dv + kv_at + row * kv_stride, dim, 0.f);
    }
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const int64_t at = first_row * q_stride + head * dim;
      for (int64_t first = 0; first < batch.length; first += kStrip) {
        const Strip strip = strip_at(batch, first);
        const int64_t rows = at + first * q_stride, keys = kv_at + strip.first_key * kv_stride;
        worker.score(batch, strip, q + at, k + kv_at);
        worker.gemm.multiply(strip.keys, dim, strip.queries,
                             cpu::transposed(worker.probabilities.data(), strip.keys),
                             cpu::rows_of(dout + rows, q_stride), dv + keys, kv_stride, true);
        worker.score_gradients(batch, strip, v + kv_at, out + at, dout + at);
        worker.gemm.multiply(strip.queries, dim, strip.keys,
                             cpu::rows_of(worker.gradients.data(), strip.keys),
                             cpu::rows_of(k + keys, kv_stride), dq + rows, q_stride);
        worker.gemm.multiply(strip.keys, dim, strip.queries,
                             cpu::transposed(worker.gradients.data(), strip.keys),
                             cpu::rows_of(q + rows, q_stride), dk + keys, kv_stride, true);
      }
    }
  });
}

}  // namespace lowbit

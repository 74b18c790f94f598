// The chain rule, from the block's output back to its input.
#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/decoder_block_scratch.h"
#include "lowbit/quantize/parallel_copy.h"
#include "lowbit/quantize/rms_norm.h"
#include "lowbit/runtime/cpu/fit_kernels.h"

namespace lowbit {

namespace {

// Turns the pairs (i, i + half) back: a rotation's transpose.
void rotate_back(float* head, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[half + i];
    head[i] = a * cos[i] + b * sin[i];
    head[half + i] = b * cos[i] - a * sin[i];
  }
}

float* sized(std::vector<float>& values, int64_t size) {
  values.resize(static_cast<size_t>(size));
  return values.data();
}

}  // namespace

// Adds dy^T x to the gradient; dx = dy W unless null, added to dx if `add`.
void DecoderBlock::linear_backward(int index, const BlockTrace& trace, const float* dy,
                                   BlockGradients& gradients, float* dx, bool add) {
  const BlockWeights::Linear& linear = weights_.linears[static_cast<size_t>(index)];
  const int64_t tokens = trace.batch.tokens();
  std::vector<float>& gradient = gradients[static_cast<size_t>(index)];
  gradient.resize(linear.weight.size());
  gemm_.multiply(linear.rows, linear.cols, tokens, cpu::transposed(dy, linear.rows),
                 cpu::rows_of(trace.input_of(index).data(), linear.cols), gradient.data(),
                 linear.cols, true);
  if (dx == nullptr) return;
  gemm_.multiply(tokens, linear.cols, linear.rows, cpu::rows_of(dy, linear.rows),
                 cpu::rows_of(linear.weight.data(), linear.cols), dx, linear.cols, add);
}

// From dy to scratch.residual = dL/dh.
void DecoderBlock::mlp_backward(const BlockTrace& trace, std::span<const float> dy,
                                BlockGradients& gradients) {
  const int64_t tokens = trace.batch.tokens(), hidden = weights_.hidden;
  const int64_t wide = weights_.intermediate;
  float* activated = sized(scratch_->activated, tokens * wide);
  linear_backward(kDown, trace, dy.data(), gradients, activated, false);

  float* dgate = sized(scratch_->gate, tokens * wide);
  float* dup = sized(scratch_->up, tokens * wide);
  const float* gate = trace.outputs[kGate].data();
  const float* up = trace.outputs[kUp].data();
  for_tokens(tokens, [&](int64_t first, int64_t last) {
    const int64_t at = first * wide;
    cpu::fit_kernels().swiglu_backward(gate + at, up + at, activated + at, dgate + at, dup + at,
                                       (last - first) * wide);
  });
  float* normed = sized(scratch_->normed, tokens * hidden);
  linear_backward(kGate, trace, dgate, gradients, normed, false);
  linear_backward(kUp, trace, dup, gradients, normed, true);

  float* residual = sized(scratch_->residual, tokens * hidden);
  parallel_copy(pool_, dy, {residual, dy.size()});
  for_tokens(tokens, [&](int64_t first, int64_t last) {
    for (int64_t at = first * hidden; at < last * hidden; at += hidden) {
      rms_norm_backward(trace.residual.data() + at, weights_.post_attention_norm, weights_.eps,
                        normed + at, residual + at, true);
    }
  });
}

// Undoes finish_heads(), in place.
void DecoderBlock::heads_backward(const BlockTrace& trace, int64_t heads,
                                  const std::vector<float>& norm, const std::vector<float>& raw,
                                  float* gradient) {
  const int64_t dim = weights_.attention.head_dim, half = dim / 2;
  for_tokens(trace.batch.tokens(), [&](int64_t first, int64_t last) {
    for (int64_t token = first; token < last; ++token) {
      const int64_t table = token % trace.batch.length * half;
      for (int64_t at = token * heads * dim; at < (token + 1) * heads * dim; at += dim) {
        rotate_back(gradient + at, rope_->cos.data() + table, rope_->sin.data() + table, half);
        if (norm.empty()) continue;
        rms_norm_backward(raw.data() + at, norm, weights_.eps, gradient + at, gradient + at, false);
      }
    }
  });
}

void DecoderBlock::backward(std::span<const float> x, const BlockTrace& trace,
                            std::span<const float> dy, BlockGradients& gradients,
                            std::span<float> dx) {
  check(trace.batch, x.size(), dy.size());
  LOWBIT_CHECK(dx.empty() || dx.size() == x.size(), "dx has ", dx.size(), " values for ", x.size());
  const int64_t tokens = trace.batch.tokens(), hidden = weights_.hidden;
  mlp_backward(trace, dy, gradients);

  const AttentionShape& shape = weights_.attention;
  Scratch& s = *scratch_;
  float* attended = sized(s.attended, tokens * shape.q_cols());
  linear_backward(kO, trace, s.residual.data(), gradients, attended, false);
  float* q = sized(s.q, tokens * shape.q_cols());
  float* k = sized(s.k, tokens * shape.kv_cols());
  float* v = sized(s.v, tokens * shape.kv_cols());
  s.attention.backward({shape, trace.batch.sequences, trace.batch.length}, trace.outputs[kQ].data(),
                       trace.outputs[kK].data(), trace.outputs[kV].data(),
                       trace.inputs[kOutputInput].data(), attended, q, k, v);
  heads_backward(trace, shape.heads, weights_.q_norm, trace.raw_q, q);
  heads_backward(trace, shape.kv_heads, weights_.k_norm, trace.raw_k, k);

  float* normed = dx.empty() ? nullptr : sized(s.normed, tokens * hidden);
  linear_backward(kQ, trace, q, gradients, normed, false);
  linear_backward(kK, trace, k, gradients, normed, true);
  linear_backward(kV, trace, v, gradients, normed, true);
  if (dx.empty()) return;
  parallel_copy(pool_, {s.residual.data(), dx.size()}, dx);
  for_tokens(tokens, [&](int64_t first, int64_t last) {
    for (int64_t at = first * hidden; at < last * hidden; at += hidden) {
      rms_norm_backward(x.data() + at, weights_.input_norm, weights_.eps, normed + at,
                        dx.data() + at, true);
    }
  });
}

}  // namespace lowbit

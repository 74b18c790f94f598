// BasicDecoderBlock's passes, for the source files that instantiate it.
#pragma once

#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/quantize/decoder_block.h"

namespace lowbit {

namespace detail {

inline void check_weights(const BlockWeights& weights) {
  for (const BlockWeights::Linear& linear : weights.linears) {
    LOWBIT_CHECK(
        linear.weight.size() == static_cast<size_t>(linear.rows * linear.cols) &&
            (linear.bias.empty() || linear.bias.size() == static_cast<size_t>(linear.rows)),
        linear.name, ": ", linear.weight.size(), " weights and ", linear.bias.size(),
        " biases for ", linear.rows, " x ", linear.cols);
  }
}

// `values` with room for `size`.
template <typename Array>
float* sized(Array& values, int64_t size) {
  values.resize(static_cast<size_t>(size));
  return values.data();
}

}  // namespace detail

// The weights where `fit` computes.
template <typename Fit>
BasicBlockWeights<typename Fit::Array> uploaded(Fit& fit, BlockWeights from) {
  BasicBlockWeights<typename Fit::Array> to;
  for (size_t n = 0; n < kBlockLinears; ++n) {
    BlockWeights::Linear& linear = from.linears[n];
    to.linears[n] = {std::move(linear.name), linear.rows, linear.cols,
                     fit.uploaded(std::move(linear.weight)), fit.uploaded(std::move(linear.bias))};
  }
  to.input_norm = fit.uploaded(std::move(from.input_norm));
  to.post_attention_norm = fit.uploaded(std::move(from.post_attention_norm));
  to.q_norm = fit.uploaded(std::move(from.q_norm));
  to.k_norm = fit.uploaded(std::move(from.k_norm));
  to.attention = from.attention;
  to.hidden = from.hidden;
  to.intermediate = from.intermediate;
  to.eps = from.eps;
  return to;
}

template <typename Fit>
BasicDecoderBlock<Fit>::BasicDecoderBlock(BlockWeights weights,
                                          const std::shared_ptr<const RopeTables>& rope, Fit fit)
    : fit_(std::move(fit)) {
  detail::check_weights(weights);
  weights_ = uploaded(fit_, std::move(weights));
  positions_ = static_cast<int64_t>(rope->cos.size()) / (weights_.attention.head_dim / 2);
  cos_ = fit_.uploaded(rope->cos);
  sin_ = fit_.uploaded(rope->sin);
}

// y = x W^T + bias, or added to y.
template <typename Fit>
void BasicDecoderBlock<Fit>::linear(int index, const Array& x, int64_t tokens, float* y, bool add) {
  const auto& linear = weights_.linears[static_cast<size_t>(index)];
  fit_.multiply(tokens, linear.rows, linear.cols, rows_of(x.data(), linear.cols),
                transposed(linear.weight.data(), linear.cols), y, linear.rows, add);
  if (!linear.bias.empty()) fit_.add_bias(y, linear.bias, tokens);
}

template <typename Fit>
void BasicDecoderBlock<Fit>::check(SequenceBatch batch, size_t x, size_t y) const {
  const auto size = static_cast<size_t>(batch.tokens() * weights_.hidden);
  LOWBIT_CHECK(batch.sequences > 0 && batch.length > 0 && x == size && y == size, "a block of ",
               weights_.hidden, " wide states got ", x, " and ", y, " values for ", batch.sequences,
               " sequences of ", batch.length);
  LOWBIT_CHECK(positions_ >= batch.length, "sequences of ", batch.length, " are longer than the ",
               positions_, " positions prepared for");
}

template <typename Fit>
typename BasicDecoderBlock<Fit>::Heads BasicDecoderBlock<Fit>::queries(const Trace& trace) const {
  return {weights_.attention.heads, weights_.q_norm, trace.raw_q};
}

template <typename Fit>
typename BasicDecoderBlock<Fit>::Heads BasicDecoderBlock<Fit>::keys(const Trace& trace) const {
  return {weights_.attention.kv_heads, weights_.k_norm, trace.raw_k};
}

// Normalizes (if the model does) and rotates the heads of q or k.
template <typename Fit>
void BasicDecoderBlock<Fit>::finish_heads(const SequenceBatch& batch, const Heads& heads,
                                          float* out) {
  const int64_t rows = batch.tokens() * heads.count;
  if (!heads.norm.empty()) {
    fit_.rms_norm(heads.raw.data(), heads.norm, weights_.eps, rows, out);
  }
  fit_.rotate(out, cos_, sin_, batch.tokens(), batch.length, heads.count,
              weights_.attention.head_dim, false);
}

template <typename Fit>
void BasicDecoderBlock<Fit>::attention(SequenceBatch batch, std::span<const float> x,
                                       Trace& trace) {
  check(batch, x.size(), x.size());
  trace.batch = batch;
  resize(trace);
  const int64_t tokens = batch.tokens();
  Array& input = trace.inputs[kAttentionInput];
  fit_.rms_norm(x.data(), weights_.input_norm, weights_.eps, tokens, input.data());
  for (const int n : {kQ, kK, kV}) linear(n, input, tokens, trace.outputs[n].data(), false);
  if (!weights_.q_norm.empty()) {
    for (auto [n, raw] : {std::pair{kQ, &trace.raw_q}, std::pair{kK, &trace.raw_k}}) {
      const auto size = static_cast<int64_t>(trace.outputs[n].size());
      fit_.copy(trace.outputs[n].data(), detail::sized(*raw, size), size);
    }
  }
  finish_heads(batch, queries(trace), trace.outputs[kQ].data());
  finish_heads(batch, keys(trace), trace.outputs[kK].data());
  fit_.attend(weights_.attention, batch.sequences, batch.length, trace.outputs[kQ].data(),
              trace.outputs[kK].data(), trace.outputs[kV].data(),
              trace.inputs[kOutputInput].data());
  fit_.copy(x.data(), trace.residual.data(), static_cast<int64_t>(x.size()));
  linear(kO, trace.inputs[kOutputInput], tokens, trace.residual.data(), true);
}

template <typename Fit>
void BasicDecoderBlock<Fit>::resize(Trace& trace) const {
  const auto tokens = static_cast<size_t>(trace.batch.tokens());
  for (int i = 0; i < kBlockLinears; ++i) {
    const auto& linear = weights_.linears[static_cast<size_t>(i)];
    trace.inputs[group_of(i)].resize(tokens * static_cast<size_t>(linear.cols));
    if (i != kO && i != kDown) {
      trace.outputs[static_cast<size_t>(i)].resize(tokens * static_cast<size_t>(linear.rows));
    }
  }
  trace.residual.resize(tokens * static_cast<size_t>(weights_.hidden));
}

template <typename Fit>
void BasicDecoderBlock<Fit>::forward(SequenceBatch batch, std::span<const float> x, Trace& trace,
                                     std::span<float> y) {
  check(batch, x.size(), y.size());
  attention(batch, x, trace);
  mlp(trace, y);
}

template <typename Fit>
void BasicDecoderBlock<Fit>::mlp(Trace& trace, std::span<float> y) {
  check(trace.batch, trace.residual.size(), y.size());
  activate(trace);
  fit_.copy(trace.residual.data(), y.data(), static_cast<int64_t>(y.size()));
  linear(kDown, trace.inputs[kDownInput], trace.batch.tokens(), y.data(), true);
}

template <typename Fit>
void BasicDecoderBlock<Fit>::activate(Trace& trace) {
  const int64_t tokens = trace.batch.tokens();
  check(trace.batch, trace.residual.size(), trace.residual.size());
  resize(trace);
  Array& input = trace.inputs[kMlpInput];
  fit_.rms_norm(trace.residual.data(), weights_.post_attention_norm, weights_.eps, tokens,
                input.data());
  for (const int n : {kGate, kUp}) linear(n, input, tokens, trace.outputs[n].data(), false);
  fit_.swiglu(trace.outputs[kGate].data(), trace.outputs[kUp].data(),
              trace.inputs[kDownInput].data(), tokens * weights_.intermediate);
}

// The chain rule from here on, from the block's output back to its input.

// Adds dy^T x to the gradient; dx = dy W unless null, added to dx if `add`.
template <typename Fit>
void BasicDecoderBlock<Fit>::linear_backward(int index, const Trace& trace, const float* dy,
                                             Gradients& gradients, float* dx, bool add) {
  const auto& linear = weights_.linears[static_cast<size_t>(index)];
  const int64_t tokens = trace.batch.tokens();
  Array& gradient = gradients[static_cast<size_t>(index)];
  gradient.resize(linear.weight.size());
  fit_.multiply(linear.rows, linear.cols, tokens, transposed(dy, linear.rows),
                rows_of(trace.input_of(index).data(), linear.cols), gradient.data(), linear.cols,
                true);
  if (dx == nullptr) return;
  fit_.multiply(tokens, linear.cols, linear.rows, rows_of(dy, linear.rows),
                rows_of(linear.weight.data(), linear.cols), dx, linear.cols, add);
}

// From dy to slopes_.residual = dL/dh.
template <typename Fit>
void BasicDecoderBlock<Fit>::mlp_backward(const Trace& trace, std::span<const float> dy,
                                          Gradients& gradients) {
  const int64_t tokens = trace.batch.tokens(), hidden = weights_.hidden;
  const int64_t wide = weights_.intermediate;
  float* activated = detail::sized(slopes_.activated, tokens * wide);
  linear_backward(kDown, trace, dy.data(), gradients, activated, false);
  float* dgate = detail::sized(slopes_.gate, tokens * wide);
  float* dup = detail::sized(slopes_.up, tokens * wide);
  fit_.swiglu_backward(trace.outputs[kGate].data(), trace.outputs[kUp].data(), activated, dgate,
                       dup, tokens * wide);
  float* normed = detail::sized(slopes_.normed, tokens * hidden);
  linear_backward(kGate, trace, dgate, gradients, normed, false);
  linear_backward(kUp, trace, dup, gradients, normed, true);
  float* residual = detail::sized(slopes_.residual, tokens * hidden);
  fit_.copy(dy.data(), residual, tokens * hidden);
  fit_.rms_norm_backward(trace.residual.data(), weights_.post_attention_norm, weights_.eps, tokens,
                         normed, residual, true);
}

// Undoes finish_heads(), in place.
template <typename Fit>
void BasicDecoderBlock<Fit>::heads_backward(const SequenceBatch& batch, const Heads& heads,
                                            float* gradient) {
  fit_.rotate(gradient, cos_, sin_, batch.tokens(), batch.length, heads.count,
              weights_.attention.head_dim, true);
  if (heads.norm.empty()) return;
  fit_.rms_norm_backward(heads.raw.data(), heads.norm, weights_.eps, batch.tokens() * heads.count,
                         gradient, gradient, false);
}

template <typename Fit>
void BasicDecoderBlock<Fit>::backward(std::span<const float> x, const Trace& trace,
                                      std::span<const float> dy, Gradients& gradients,
                                      std::span<float> dx) {
  check(trace.batch, x.size(), dy.size());
  LOWBIT_CHECK(dx.empty() || dx.size() == x.size(), "dx has ", dx.size(), " values for ", x.size());
  const int64_t tokens = trace.batch.tokens(), hidden = weights_.hidden;
  mlp_backward(trace, dy, gradients);

  const AttentionShape& shape = weights_.attention;
  float* attended = detail::sized(slopes_.attended, tokens * shape.q_cols());
  linear_backward(kO, trace, slopes_.residual.data(), gradients, attended, false);
  float* q = detail::sized(slopes_.q, tokens * shape.q_cols());
  float* k = detail::sized(slopes_.k, tokens * shape.kv_cols());
  float* v = detail::sized(slopes_.v, tokens * shape.kv_cols());
  fit_.attend_backward(shape, trace.batch.sequences, trace.batch.length, trace.outputs[kQ].data(),
                       trace.outputs[kK].data(), trace.outputs[kV].data(),
                       trace.inputs[kOutputInput].data(), attended, q, k, v);
  heads_backward(trace.batch, queries(trace), q);
  heads_backward(trace.batch, keys(trace), k);

  float* normed = dx.empty() ? nullptr : detail::sized(slopes_.normed, tokens * hidden);
  linear_backward(kQ, trace, q, gradients, normed, false);
  linear_backward(kK, trace, k, gradients, normed, true);
  linear_backward(kV, trace, v, gradients, normed, true);
  if (dx.empty()) return;
  fit_.copy(slopes_.residual.data(), dx.data(), tokens * hidden);
  fit_.rms_norm_backward(x.data(), weights_.input_norm, weights_.eps, tokens, normed, dx.data(),
                         true);
}

}  // namespace lowbit

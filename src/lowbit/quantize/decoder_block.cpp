#include "lowbit/quantize/decoder_block.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/model/model.h"
#include "lowbit/quantize/decoder_block_scratch.h"
#include "lowbit/quantize/parallel_copy.h"
#include "lowbit/quantize/rms_norm.h"
#include "lowbit/runtime/cpu/fit_kernels.h"

namespace lowbit {

namespace {

// Rotates the pairs (i, i + half) of one head.
void rotate(float* head, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[half + i];
    head[i] = a * cos[i] - b * sin[i];
    head[half + i] = b * cos[i] + a * sin[i];
  }
}

void check_weights(const BlockWeights& weights) {
  for (const BlockWeights::Linear& linear : weights.linears) {
    LOWBIT_CHECK(
        linear.weight.size() == static_cast<size_t>(linear.rows * linear.cols) &&
            (linear.bias.empty() || linear.bias.size() == static_cast<size_t>(linear.rows)),
        linear.name, ": ", linear.weight.size(), " weights and ", linear.bias.size(),
        " biases for ", linear.rows, " x ", linear.cols);
  }
}

}  // namespace

BlockWeights load_block_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                int64_t index) {
  BlockWeights block;
  size_t next = 0;
  for (const std::vector<LinearSlot>& group : block_linears(config, index)) {
    for (const LinearSlot& slot : group) {
      LinearWeight linear = checkpoint.load_linear(slot.module, slot.rows, slot.cols);
      block.linears[next++] = {slot.module, slot.rows, slot.cols, dequantize(linear.weight),
                               slot.bias ? std::move(linear.bias) : std::vector<float>()};
      checkpoint.release(slot.module);
    }
  }
  const std::string prefix = concat("model.layers.", index, ".");
  const auto norm = [&](const char* name, int64_t size) {
    return checkpoint.load_vector(prefix + name + ".weight", size);
  };
  block.input_norm = norm("input_layernorm", config.hidden_size);
  block.post_attention_norm = norm("post_attention_layernorm", config.hidden_size);
  if (config.qk_norm) {
    block.q_norm = norm("self_attn.q_norm", config.head_dim);
    block.k_norm = norm("self_attn.k_norm", config.head_dim);
  }
  block.attention = {config.num_attention_heads, config.num_key_value_heads, config.head_dim,
                     config.window(index)};
  block.hidden = config.hidden_size;
  block.intermediate = config.intermediate_size;
  block.eps = static_cast<float>(config.rms_norm_eps);
  return block;
}

DecoderBlock::DecoderBlock(BlockWeights weights, std::shared_ptr<const RopeTables> rope,
                           ThreadPool& pool)
    : weights_(std::move(weights)),
      rope_(std::move(rope)),
      pool_(pool),
      gemm_(&pool),
      scratch_(std::make_unique<Scratch>(pool)) {
  check_weights(weights_);
}

DecoderBlock::~DecoderBlock() = default;

// In shares of some tokens: a call per token would cost more than its work.
void DecoderBlock::for_tokens(int64_t tokens,
                              const std::function<void(int64_t first, int64_t last)>& body) {
  constexpr int64_t kShare = 16;
  pool_.parallel_for((tokens + kShare - 1) / kShare, [&](int64_t share, int) {
    body(share * kShare, std::min(tokens, (share + 1) * kShare));
  });
}

// y = x W^T + bias, or added to y.
void DecoderBlock::linear(int index, const std::vector<float>& x, int64_t tokens, float* y,
                          bool add) {
  const BlockWeights::Linear& linear = weights_.linears[static_cast<size_t>(index)];
  gemm_.multiply(tokens, linear.rows, linear.cols, cpu::rows_of(x.data(), linear.cols),
                 cpu::transposed(linear.weight.data(), linear.cols), y, linear.rows, add);
  if (linear.bias.empty()) return;
  for_tokens(tokens, [&](int64_t first, int64_t last) {
    for (int64_t at = first * linear.rows; at < last * linear.rows; ++at) {
      y[at] += linear.bias[static_cast<size_t>(at % linear.rows)];
    }
  });
}

void DecoderBlock::check(SequenceBatch batch, size_t x, size_t y) const {
  const auto size = static_cast<size_t>(batch.tokens() * weights_.hidden);
  LOWBIT_CHECK(batch.sequences > 0 && batch.length > 0 && x == size && y == size, "a block of ",
               weights_.hidden, " wide states got ", x, " and ", y, " values for ", batch.sequences,
               " sequences of ", batch.length);
  const int64_t half = weights_.attention.head_dim / 2;
  LOWBIT_CHECK(static_cast<int64_t>(rope_->cos.size()) >= batch.length * half, "sequences of ",
               batch.length, " are longer than the ",
               static_cast<int64_t>(rope_->cos.size()) / half, " positions prepared for");
}

// Normalizes (if the model does) and rotates the heads of q or k.
void DecoderBlock::finish_heads(const BlockTrace& trace, int64_t heads,
                                const std::vector<float>& norm, const std::vector<float>& raw,
                                std::vector<float>& out) {
  const int64_t dim = weights_.attention.head_dim, half = dim / 2;
  for_tokens(trace.batch.tokens(), [&](int64_t first, int64_t last) {
    for (int64_t token = first; token < last; ++token) {
      const int64_t table = token % trace.batch.length * half;
      for (int64_t at = token * heads * dim; at < (token + 1) * heads * dim; at += dim) {
        if (!norm.empty()) rms_norm(raw.data() + at, norm, weights_.eps, out.data() + at);
        rotate(out.data() + at, rope_->cos.data() + table, rope_->sin.data() + table, half);
      }
    }
  });
}

void DecoderBlock::attention(SequenceBatch batch, std::span<const float> x, BlockTrace& trace) {
  check(batch, x.size(), x.size());
  trace.batch = batch;
  resize(trace);
  const AttentionShape& shape = weights_.attention;
  const int64_t tokens = trace.batch.tokens(), hidden = weights_.hidden;
  std::vector<float>& input = trace.inputs[kAttentionInput];
  for_tokens(tokens, [&](int64_t first, int64_t last) {
    for (int64_t at = first * hidden; at < last * hidden; at += hidden) {
      rms_norm(x.data() + at, weights_.input_norm, weights_.eps, input.data() + at);
    }
  });
  linear(kQ, input, tokens, trace.outputs[kQ].data(), false);
  linear(kK, input, tokens, trace.outputs[kK].data(), false);
  linear(kV, input, tokens, trace.outputs[kV].data(), false);
  if (!weights_.q_norm.empty()) {
    trace.raw_q = trace.outputs[kQ];
    trace.raw_k = trace.outputs[kK];
  }
  finish_heads(trace, shape.heads, weights_.q_norm, trace.raw_q, trace.outputs[kQ]);
  finish_heads(trace, shape.kv_heads, weights_.k_norm, trace.raw_k, trace.outputs[kK]);
  scratch_->attention.forward({shape, trace.batch.sequences, trace.batch.length},
                              trace.outputs[kQ].data(), trace.outputs[kK].data(),
                              trace.outputs[kV].data(), trace.inputs[kOutputInput].data());
  parallel_copy(pool_, x, trace.residual);
  linear(kO, trace.inputs[kOutputInput], tokens, trace.residual.data(), true);
}

void DecoderBlock::resize(BlockTrace& trace) const {
  const auto tokens = static_cast<size_t>(trace.batch.tokens());
  for (int i = 0; i < kBlockLinears; ++i) {
    const BlockWeights::Linear& linear = weights_.linears[static_cast<size_t>(i)];
    trace.inputs[group_of(i)].resize(tokens * static_cast<size_t>(linear.cols));
    if (i != kO && i != kDown) {
      trace.outputs[static_cast<size_t>(i)].resize(tokens * static_cast<size_t>(linear.rows));
    }
  }
  trace.residual.resize(tokens * static_cast<size_t>(weights_.hidden));
}

void DecoderBlock::forward(SequenceBatch batch, std::span<const float> x, BlockTrace& trace,
                           std::span<float> y) {
  check(batch, x.size(), y.size());
  attention(batch, x, trace);
  mlp(trace, y);
}

void DecoderBlock::mlp(BlockTrace& trace, std::span<float> y) {
  check(trace.batch, trace.residual.size(), y.size());
  activate(trace);
  parallel_copy(pool_, trace.residual, y);
  linear(kDown, trace.inputs[kDownInput], trace.batch.tokens(), y.data(), true);
}

void DecoderBlock::activate(BlockTrace& trace) {
  const int64_t tokens = trace.batch.tokens();
  check(trace.batch, trace.residual.size(), trace.residual.size());
  resize(trace);
  const int64_t hidden = weights_.hidden, wide = weights_.intermediate;
  std::vector<float>& input = trace.inputs[kMlpInput];
  for_tokens(tokens, [&](int64_t first, int64_t last) {
    for (int64_t at = first * hidden; at < last * hidden; at += hidden) {
      rms_norm(trace.residual.data() + at, weights_.post_attention_norm, weights_.eps,
               input.data() + at);
    }
  });
  linear(kGate, input, tokens, trace.outputs[kGate].data(), false);
  linear(kUp, input, tokens, trace.outputs[kUp].data(), false);
  const float* gate = trace.outputs[kGate].data();
  const float* up = trace.outputs[kUp].data();
  float* activated = trace.inputs[kDownInput].data();
  for_tokens(tokens, [&](int64_t first, int64_t last) {
    const int64_t at = first * wide;
    cpu::fit_kernels().swiglu(gate + at, up + at, activated + at, (last - first) * wide);
  });
}

}  // namespace lowbit

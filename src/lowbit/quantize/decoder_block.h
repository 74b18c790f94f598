// DecoderBlock: one block of a Llama-class decoder in fp32, forward and backward, for methods that
// fit weights to data. Inference never comes here: model/model.h.
//
//   h = x + o(attention(rope(q), rope(k), v)),  {q, k, v} of norm1(x)
//   y = h + down(silu(gate) * up),              {gate, up} of norm2(h)
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/model/rope.h"
#include "lowbit/quantize/block_weights.h"
#include "lowbit/runtime/cpu/gemm.h"

namespace lowbit {

// Block `index` of the checkpoint, every linear dequantized. Throws as Checkpoint::load_linear.
BlockWeights load_block_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                int64_t index);

// Sequences of one length that all start at position 0: x[sequences * length][hidden].
struct SequenceBatch {
  int64_t sequences = 0;
  int64_t length = 0;
  int64_t tokens() const { return sequences * length; }
};

// What a forward pass computed: the inputs of the linears, and what backward needs. Buffers grow
// to the largest batch; all are [tokens][...].
struct BlockTrace {
  SequenceBatch batch;
  std::array<std::vector<float>, kLinearGroups> inputs;   // of each group of linears
  std::array<std::vector<float>, kBlockLinears> outputs;  // of each linear, o and down excepted;
                                                          // q and k as attention sees them
  std::vector<float> raw_q, raw_k;                        // before q_norm and k_norm, if there are
  std::vector<float> residual;                            // h, [tokens][hidden]

  const std::vector<float>& input_of(int linear) const { return inputs[group_of(linear)]; }
};

// dL/dw of each linear's weight, [rows][cols]; added to.
using BlockGradients = std::array<std::vector<float>, kBlockLinears>;

class DecoderBlock {
 public:
  // The rope tables must cover the sequences' length. Results do not depend on the pool.
  DecoderBlock(BlockWeights weights, std::shared_ptr<const RopeTables> rope, ThreadPool& pool);
  ~DecoderBlock();

  // May be changed between passes (same shapes).
  BlockWeights& weights() { return weights_; }
  const BlockWeights& weights() const { return weights_; }

  // y = block(x). x, y: [batch.tokens()][hidden]; may not overlap. Throws kInvalidArgument if the
  // spans do not fit the batch or a sequence is longer than the rope tables.
  void forward(SequenceBatch batch, std::span<const float> x, BlockTrace& trace,
               std::span<float> y);
  // The two halves of forward(). attention() fills the trace up to `residual`, x + o(...); mlp()
  // goes on from a trace whose batch and residual may come from anywhere.
  void attention(SequenceBatch batch, std::span<const float> x, BlockTrace& trace);
  void mlp(BlockTrace& trace, std::span<float> y);
  // mlp() without its last product: fills the trace up to down's input.
  void activate(BlockTrace& trace);
  // dL/dw of every linear from dL/dy, for the pass that filled `trace` with the same weights and
  // x. dx: dL/dx, or empty if not wanted. Gradients are added to `gradients`, which holds zeros or
  // earlier sums (empty vectors are made).
  void backward(std::span<const float> x, const BlockTrace& trace, std::span<const float> dy,
                BlockGradients& gradients, std::span<float> dx = {});

 private:
  struct Scratch;
  void check(SequenceBatch batch, size_t x, size_t y) const;
  void resize(BlockTrace& trace) const;
  void for_tokens(int64_t tokens, const std::function<void(int64_t first, int64_t last)>& body);
  void linear(int index, const std::vector<float>& x, int64_t tokens, float* y, bool add);
  void finish_heads(const BlockTrace& trace, int64_t heads, const std::vector<float>& norm,
                    const std::vector<float>& raw, std::vector<float>& out);
  void linear_backward(int index, const BlockTrace& trace, const float* dy,
                       BlockGradients& gradients, float* dx, bool add);
  void heads_backward(const BlockTrace& trace, int64_t heads, const std::vector<float>& norm,
                      const std::vector<float>& raw, float* gradient);
  void mlp_backward(const BlockTrace& trace, std::span<const float> dy, BlockGradients& gradients);

  BlockWeights weights_;
  std::shared_ptr<const RopeTables> rope_;
  ThreadPool& pool_;
  cpu::Gemm gemm_;
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace lowbit

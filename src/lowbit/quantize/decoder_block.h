// DecoderBlock: one block of a Llama-class decoder in fp32, forward and backward, for methods that
// fit weights to data. Inference never comes here: model/model.h.
//
//   h = x + o(attention(rope(q), rope(k), v)),  {q, k, v} of norm1(x)
//   y = h + down(silu(gate) * up),              {gate, up} of norm2(h)
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/model/rope.h"
#include "lowbit/quantize/block_weights.h"
#include "lowbit/quantize/host_fit.h"

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
template <typename Array>
struct BasicBlockTrace {
  SequenceBatch batch;
  std::array<Array, kLinearGroups> inputs;   // of each group of linears
  std::array<Array, kBlockLinears> outputs;  // of each linear, o and down excepted;
                                             // q and k as attention sees them
  Array raw_q, raw_k;                        // before q_norm and k_norm, if there are
  Array residual;                            // h, [tokens][hidden]

  const Array& input_of(int linear) const { return inputs[group_of(linear)]; }
};
using BlockTrace = BasicBlockTrace<std::vector<float>>;

// dL/dw of each linear's weight, [rows][cols]; added to.
template <typename Array>
using BasicBlockGradients = std::array<Array, kBlockLinears>;
using BlockGradients = BasicBlockGradients<std::vector<float>>;

// Fit: where it is computed, HostFit or cuda::Fit; spans and arrays are of its memory.
template <typename Fit>
class BasicDecoderBlock {
 public:
  using Array = typename Fit::Array;
  using Weights = BasicBlockWeights<Array>;
  using Trace = BasicBlockTrace<Array>;
  using Gradients = BasicBlockGradients<Array>;

  // The rope tables must cover the sequences' length. A ThreadPool converts to a HostFit.
  BasicDecoderBlock(BlockWeights weights, const std::shared_ptr<const RopeTables>& rope, Fit fit);

  // May be changed between passes (same shapes).
  Weights& weights() { return weights_; }
  const Weights& weights() const { return weights_; }

  // y = block(x). x, y: [batch.tokens()][hidden]; may not overlap. Throws kInvalidArgument if the
  // spans do not fit the batch or a sequence is longer than the rope tables.
  void forward(SequenceBatch batch, std::span<const float> x, Trace& trace, std::span<float> y);
  // The two halves of forward(). attention() fills the trace up to `residual`, x + o(...); mlp()
  // goes on from a trace whose batch and residual may come from anywhere.
  void attention(SequenceBatch batch, std::span<const float> x, Trace& trace);
  void mlp(Trace& trace, std::span<float> y);
  // mlp() without its last product: fills the trace up to down's input.
  void activate(Trace& trace);
  // dL/dw of every linear from dL/dy, for the pass that filled `trace` with the same weights and
  // x. dx: dL/dx, or empty if not wanted. Gradients are added to `gradients`, which holds zeros or
  // earlier sums (empty arrays are made).
  void backward(std::span<const float> x, const Trace& trace, std::span<const float> dy,
                Gradients& gradients, std::span<float> dx = {});

 private:
  // A norm or none, and q or k before it.
  struct Heads {
    int64_t count;
    const Array& norm;
    const Array& raw;
  };
  Heads queries(const Trace& trace) const;
  Heads keys(const Trace& trace) const;
  void check(SequenceBatch batch, size_t x, size_t y) const;
  void resize(Trace& trace) const;
  void linear(int index, const Array& x, int64_t tokens, float* y, bool add);
  void finish_heads(const SequenceBatch& batch, const Heads& heads, float* out);
  void linear_backward(int index, const Trace& trace, const float* dy, Gradients& gradients,
                       float* dx, bool add);
  void heads_backward(const SequenceBatch& batch, const Heads& heads, float* gradient);
  void mlp_backward(const Trace& trace, std::span<const float> dy, Gradients& gradients);

  Fit fit_;
  Weights weights_;
  int64_t positions_;
  Array cos_, sin_;  // [positions_][head_dim / 2]
  // Gradients of one backward pass, [tokens][...].
  struct {
    Array residual;  // of h
    Array normed;    // of a norm's output
    Array attended;  // of o's input
    Array q, k, v;
    Array activated;  // of down's input
    Array gate, up;
  } slopes_;
};

extern template class BasicDecoderBlock<HostFit>;
using DecoderBlock = BasicDecoderBlock<HostFit>;

}  // namespace lowbit

// BackendBlock: one decoder block on a backend, as the model runs it, with calibration sequences
// flowing through it. decoder_block.h has the same in fp32 on the host, with a backward pass.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/quantize/block_weights.h"
#include "lowbit/runtime/backend.h"

namespace lowbit {

// Some sequences of one length that pass the blocks together, all from position 0, and the buffers
// for what one block makes of them. Blocks do not share keys and values: one layer is enough.
class SequencePass {
 public:
  // Sequences of `length` tokens, `most` at a time.
  SequencePass(Backend& backend, const ModelConfig& config, int64_t length, int64_t most);

  // Must precede the passes of so many sequences. tokens: their ids, one after another.
  void begin(std::vector<int32_t> tokens);

 private:
  friend class BackendBlock;
  Backend& backend_;
  int64_t length_, blocks_;  // blocks of the cache that a sequence has
  StepBatch batch_;
  KvCache cache_;
  Tensor cos_, sin_;
  Tensor residual_, hidden_;  // [tokens][hidden]
  Tensor qkv_, attended_, gate_up_, activated_;
};

class BackendBlock {
 public:
  // Shown the inputs of a group of linears, valid until the call returns.
  using Observer = std::function<void(LinearGroup group, const Tensor& x)>;

  // Block `index`: its linears `weights`, in the order of BlockLinear, and norms of `checkpoint`.
  BackendBlock(Backend& backend, const ModelConfig& config, const Checkpoint& checkpoint,
               int64_t index, std::array<LinearWeight, kBlockLinears> weights);

  // Shows `observer` what the linears get when `states`, [tokens][hidden], enter the block.
  void observe(SequencePass& pass, const Tensor& states, const Observer& observer) const;
  // states = block(states)
  void forward(SequencePass& pass, Tensor& states) const;

 private:
  void run(SequencePass& pass, const Tensor& states, const Observer* observer) const;

  Backend& backend_;
  AttentionShape shape_;
  float eps_;
  Tensor input_norm_, post_attention_norm_, q_norm_, k_norm_;
  std::unique_ptr<Linear> qkv_, o_, gate_up_, down_;
};

// Its linears as stored, and its biases where the model has them.
std::array<LinearWeight, kBlockLinears> load_block_linears(const Checkpoint& checkpoint,
                                                           const ModelConfig& config,
                                                           int64_t index);

}  // namespace lowbit

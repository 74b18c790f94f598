#include "lowbit/base/check.h"
#include "lowbit/model/model.h"
#include "lowbit/quantize/decoder_block_passes.h"

namespace lowbit {

template class BasicDecoderBlock<HostFit>;

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

}  // namespace lowbit

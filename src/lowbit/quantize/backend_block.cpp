#include "lowbit/quantize/backend_block.h"

#include <numeric>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/model/model.h"
#include "lowbit/model/rope.h"

namespace lowbit {

namespace {

Tensor upload_table(Backend& backend, const std::vector<float>& values, int64_t rows) {
  Tensor table = backend.upload(values);
  table.cols = static_cast<int64_t>(values.size()) / rows;
  table.rows = rows;
  return table;
}

AttentionShape shape_of(const ModelConfig& config, int64_t index) {
  return {config.num_attention_heads, config.num_key_value_heads, config.head_dim,
          config.window(index)};
}

}  // namespace

SequencePass::SequencePass(Backend& backend, const ModelConfig& config, int64_t length,
                           int64_t most)
    : backend_(backend), length_(length), blocks_((length + kBlockTokens - 1) / kBlockTokens) {
  KvCacheSpec spec = config.kv_cache(most * blocks_, DType::kF16);
  spec.layers = 1;
  cache_ = backend.make_kv_cache(spec);
  const RopeTables tables = rope_tables(config.rope, config.head_dim, length);
  cos_ = upload_table(backend, tables.cos, length);
  sin_ = upload_table(backend, tables.sin, length);
  const int64_t tokens = most * length;
  const AttentionShape shape = shape_of(config, 0);
  residual_ = backend.allocate(tokens, config.hidden_size);
  hidden_ = backend.allocate(tokens, config.hidden_size);
  qkv_ = backend.allocate(tokens, shape.qkv_cols());
  attended_ = backend.allocate(tokens, shape.q_cols());
  gate_up_ = backend.allocate(tokens, 2 * config.intermediate_size);
  activated_ = backend.allocate(tokens, config.intermediate_size);
}

void SequencePass::begin(std::vector<int32_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size()) / length_;
  batch_ = {};
  batch_.tokens = std::move(tokens);
  for (int64_t s = 0; s < count; ++s) {
    std::vector<int32_t> table(static_cast<size_t>(blocks_));
    std::iota(table.begin(), table.end(), static_cast<int32_t>(s * blocks_));
    batch_.sequences.push_back({s * length_, length_, 0, std::move(table)});
  }
  backend_.begin_step(batch_);
}

std::array<LinearWeight, kBlockLinears> load_block_linears(const Checkpoint& checkpoint,
                                                           const ModelConfig& config,
                                                           int64_t index) {
  std::array<LinearWeight, kBlockLinears> weights;
  size_t next = 0;
  for (const std::vector<LinearSlot>& group : block_linears(config, index)) {
    for (const LinearSlot& slot : group) {
      weights[next] = checkpoint.load_linear(slot.module, slot.rows, slot.cols);
      weights[next].name = slot.module;
      if (!slot.bias) weights[next].bias.clear();
      ++next;
    }
  }
  return weights;
}

BackendBlock::BackendBlock(Backend& backend, const ModelConfig& config,
                           const Checkpoint& checkpoint, int64_t index,
                           std::array<LinearWeight, kBlockLinears> weights)
    : backend_(backend),
      shape_(shape_of(config, index)),
      eps_(static_cast<float>(config.rms_norm_eps)) {
  const std::string prefix = concat("model.layers.", index, ".");
  const auto norm = [&](const char* name, int64_t size) {
    return backend.upload(checkpoint.load_vector(prefix + name + ".weight", size));
  };
  input_norm_ = norm("input_layernorm", config.hidden_size);
  post_attention_norm_ = norm("post_attention_layernorm", config.hidden_size);
  if (config.qk_norm) {
    q_norm_ = norm("self_attn.q_norm", config.head_dim);
    k_norm_ = norm("self_attn.k_norm", config.head_dim);
  }
  const auto fused = [&](int first, int last) {
    std::vector<LinearWeight> parts;
    for (int i = first; i <= last; ++i) parts.push_back(std::move(weights[i]));
    return backend.make_linear(std::move(parts));
  };
  qkv_ = fused(kQ, kV);
  o_ = fused(kO, kO);
  gate_up_ = fused(kGate, kUp);
  down_ = fused(kDown, kDown);
}

// Up to down's input. What enters is added to a residual of zeros, which leaves it as it is.
void BackendBlock::run(SequencePass& p, const Tensor& states, const Observer* observer) const {
  const int64_t tokens = states.rows;
  Tensor residual = p.residual_.first(tokens), hidden = p.hidden_.first(tokens);
  Tensor qkv = p.qkv_.first(tokens), attended = p.attended_.first(tokens);
  Tensor gate_up = p.gate_up_.first(tokens), activated = p.activated_.first(tokens);
  const auto show = [&](LinearGroup group, const Tensor& x) {
    if (observer != nullptr) (*observer)(group, x);
  };
  backend_.zero(residual);
  backend_.add_rms_norm(residual, states, input_norm_, eps_, hidden);
  show(kAttentionInput, hidden);
  qkv_->forward(hidden, qkv);
  if (q_norm_.rows > 0) backend_.qk_norm(qkv, shape_, q_norm_, k_norm_, eps_);
  backend_.rope_and_attend(qkv, shape_, p.cos_, p.sin_, p.cache_, 0, attended);
  show(kOutputInput, attended);
  o_->forward(attended, hidden);
  backend_.add_rms_norm(residual, hidden, post_attention_norm_, eps_, hidden);
  show(kMlpInput, hidden);
  gate_up_->forward(hidden, gate_up);
  backend_.silu_mul(gate_up, activated);
  show(kDownInput, activated);
}

void BackendBlock::observe(SequencePass& pass, const Tensor& states,
                           const Observer& observer) const {
  run(pass, states, &observer);
}

void BackendBlock::forward(SequencePass& pass, Tensor& states) const {
  run(pass, states, nullptr);
  Tensor residual = pass.residual_.first(states.rows), hidden = pass.hidden_.first(states.rows);
  down_->forward(pass.activated_.first(states.rows), hidden);
  // residual += hidden; the norm of it is not needed.
  backend_.add_rms_norm(residual, hidden, post_attention_norm_, eps_, hidden);
  backend_.zero(states);
  backend_.add_rms_norm(states, residual, post_attention_norm_, eps_, hidden);
}

}  // namespace lowbit

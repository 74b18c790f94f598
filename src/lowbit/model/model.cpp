#include "lowbit/model/model.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"

namespace lowbit {

namespace {

constexpr int64_t kDefaultContext = 8192;

// Some quantizers store a bias of zeros where the model has none; any other bias would be lost.
void check_bias(LinearWeight& linear, bool expected, const std::string& origin) {
  LOWBIT_CHECK_KIND(!expected || !linear.bias.empty(), ErrorKind::kCorruptFile, origin, ": ",
                    linear.name, ".bias is missing, but the config says that there is one");
  if (expected) return;
  const bool zeros =
      std::all_of(linear.bias.begin(), linear.bias.end(), [](float value) { return value == 0; });
  LOWBIT_CHECK_KIND(zeros, ErrorKind::kCorruptFile, origin, ": ", linear.name,
                    ".bias is stored, but the config says that there is none");
  linear.bias.clear();
}

// One layer of the model's own for linears that read the same input.
std::unique_ptr<Linear> load_fused(const Checkpoint& checkpoint, Backend& backend,
                                   const std::vector<LinearSlot>& slots) {
  std::vector<LinearWeight> parts;
  for (const LinearSlot& slot : slots) {
    parts.push_back(checkpoint.load_linear(slot.module, slot.rows, slot.cols));
    check_bias(parts.back(), slot.bias, checkpoint.path());
  }
  std::unique_ptr<Linear> linear = backend.make_linear(std::move(parts));
  for (const LinearSlot& slot : slots) checkpoint.release(slot.module);
  return linear;
}

Tensor load_norm(const Checkpoint& checkpoint, Backend& backend, const std::string& module,
                 int64_t size) {
  Tensor weight = backend.upload(checkpoint.load_vector(module + ".weight", size));
  checkpoint.release(module);
  return weight;
}

bool same_weight(const QTensor& a, const QTensor& b) {
  return a.scheme == b.scheme && a.codes.size == b.codes.size && a.scales == b.scales &&
         a.zeros == b.zeros && a.offsets == b.offsets && a.input_order == b.input_order &&
         !a.outliers && !b.outliers && std::memcmp(a.codes.data, b.codes.data, a.codes.size) == 0;
}

Tensor upload_table(Backend& backend, const std::vector<float>& values, int64_t rows) {
  Tensor table = backend.upload(values);
  table.cols = static_cast<int64_t>(values.size()) / rows;
  table.rows = rows;
  return table;
}

}  // namespace

std::vector<std::vector<LinearSlot>> block_linears(const ModelConfig& config, int64_t block) {
  const std::string prefix = concat("model.layers.", block, ".");
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const int64_t hidden = config.hidden_size, intermediate = config.intermediate_size;
  const int64_t q_rows = config.num_attention_heads * config.head_dim;
  const int64_t kv_rows = config.num_key_value_heads * config.head_dim;
  return {
      {{attention + "q_proj", q_rows, hidden, config.qkv_bias},
       {attention + "k_proj", kv_rows, hidden, config.qkv_bias},
       {attention + "v_proj", kv_rows, hidden, config.qkv_bias}},
      {{attention + "o_proj", hidden, q_rows, config.o_bias}},
      {{mlp + "gate_proj", intermediate, hidden, config.mlp_bias},
       {mlp + "up_proj", intermediate, hidden, config.mlp_bias}},
      {{mlp + "down_proj", hidden, intermediate, config.mlp_bias}},
  };
}

struct Model::Block {
  AttentionShape shape;
  Tensor input_layernorm, post_attention_layernorm;  // [hidden_size]
  Tensor q_norm, k_norm;                             // [head_dim], if qk_norm
  std::unique_ptr<Linear> qkv_proj, o_proj, gate_up_proj, down_proj;
};

// Activations of one pass. Allocated once for max_batch tokens, but for the logits, which grow to
// the most rows ever asked for: a row is as wide as the vocabulary.
struct Model::Buffers {
  Tensor residual, hidden;  // [tokens][hidden_size]
  Tensor qkv;               // [tokens][qkv_cols]
  Tensor attended;          // [tokens][q_cols]
  Tensor gate_up, mlp;      // [tokens][2 * intermediate_size], [tokens][intermediate_size]
  Tensor gathered;          // [logit rows][hidden_size]
  Tensor logits;            // [logit rows][vocab_size]

  // Views of the first `tokens` rows.
  Buffers first(int64_t tokens, int64_t logit_rows) const {
    return {residual.first(tokens),     hidden.first(tokens),
            qkv.first(tokens),          attended.first(tokens),
            gate_up.first(tokens),      mlp.first(tokens),
            gathered.first(logit_rows), logits};
  }
};

Model::Model(const Checkpoint& checkpoint, Backend& backend, const ModelOptions& options)
    : config_(parse_model_config(checkpoint.config(), checkpoint.generation_config(),
                                 checkpoint.path())),
      backend_(backend),
      context_(options.context > 0 ? options.context
                                   : std::min(config_.max_position_embeddings, kDefaultContext)),
      max_batch_(options.max_batch) {
  LOWBIT_CHECK(options.context >= 0 && context_ <= config_.max_position_embeddings, "context ",
               options.context, ": ", checkpoint.path(), " is made for 1 to ",
               config_.max_position_embeddings, " positions");
  LOWBIT_CHECK(options.max_batch > 0, "max_batch must be positive, not ", options.max_batch);

  Progress progress("loading", config_.num_hidden_layers, "layers");
  load_embeddings(checkpoint);
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    if (options.progress) progress.update(i + 1);
    blocks_.push_back(load_block(checkpoint, i));
  }
  norm_ = load_norm(checkpoint, backend_, "model.norm", config_.hidden_size);
  const RopeTables tables = rope_tables(config_.rope, config_.head_dim, context_);
  cos_ = upload_table(backend_, tables.cos, context_);
  sin_ = upload_table(backend_, tables.sin, context_);
  allocate_buffers();
}

Model::~Model() = default;

// As transformers: tied weights that are stored twice and differ are not tied, and the one that is
// stored stands for the other.
void Model::load_embeddings(const Checkpoint& checkpoint) {
  const std::string embed = "model.embed_tokens", head = "lm_head";
  const bool has_embed = checkpoint.contains(embed + ".weight");
  const bool has_head = checkpoint.contains(head + ".weight");
  const auto load = [&](const std::string& module) {
    LinearWeight weight = checkpoint.load_linear(module, config_.vocab_size, config_.hidden_size);
    check_bias(weight, false, checkpoint.path());
    return weight;
  };
  const auto make = [&](LinearWeight weight) {
    std::vector<LinearWeight> parts;
    parts.push_back(std::move(weight));
    return backend_.make_linear(std::move(parts));
  };

  LOWBIT_CHECK_KIND(has_head || config_.tie_word_embeddings, ErrorKind::kCorruptFile,
                    checkpoint.path(),
                    ": lm_head.weight is missing, and tie_word_embeddings is false");
  LinearWeight weight = load(!has_embed && config_.tie_word_embeddings ? head : embed);
  if (has_head && has_embed) {
    LinearWeight head_weight = load(head);
    if (!config_.tie_word_embeddings || !same_weight(weight.weight, head_weight.weight)) {
      lm_head_ = make(std::move(head_weight));
      config_.tie_word_embeddings = false;
    }
  }
  embed_tokens_ = make(std::move(weight));
  checkpoint.release(embed);
  checkpoint.release(head);
}

std::unique_ptr<Model::Block> Model::load_block(const Checkpoint& checkpoint, int64_t index) const {
  const std::string prefix = concat("model.layers.", index, ".");
  const std::vector<std::vector<LinearSlot>> slots = block_linears(config_, index);
  auto block = std::make_unique<Block>();
  block->shape = {config_.num_attention_heads, config_.num_key_value_heads, config_.head_dim,
                  config_.window(index)};
  const auto norm = [&](const char* name, int64_t size) {
    return load_norm(checkpoint, backend_, prefix + name, size);
  };
  block->input_layernorm = norm("input_layernorm", config_.hidden_size);
  block->qkv_proj = load_fused(checkpoint, backend_, slots[0]);
  if (config_.qk_norm) {
    block->q_norm = norm("self_attn.q_norm", config_.head_dim);
    block->k_norm = norm("self_attn.k_norm", config_.head_dim);
  }
  block->o_proj = load_fused(checkpoint, backend_, slots[1]);
  block->post_attention_layernorm = norm("post_attention_layernorm", config_.hidden_size);
  block->gate_up_proj = load_fused(checkpoint, backend_, slots[2]);
  block->down_proj = load_fused(checkpoint, backend_, slots[3]);
  return block;
}

void Model::allocate_buffers() {
  const AttentionShape& shape = blocks_.front()->shape;
  buffers_ = std::make_unique<Buffers>();
  Buffers& b = *buffers_;
  b.residual = backend_.allocate(max_batch_, config_.hidden_size);
  b.hidden = backend_.allocate(max_batch_, config_.hidden_size);
  b.qkv = backend_.allocate(max_batch_, shape.qkv_cols());
  b.attended = backend_.allocate(max_batch_, shape.q_cols());
  b.gate_up = backend_.allocate(max_batch_, 2 * config_.intermediate_size);
  b.mlp = backend_.allocate(max_batch_, config_.intermediate_size);
  b.gathered = backend_.allocate(max_batch_, config_.hidden_size);
  b.logits = backend_.allocate(1, config_.vocab_size);
}

std::vector<const Linear*> Model::decode_linears() const {
  std::vector<const Linear*> linears;
  for (const auto& block : blocks_) {
    for (const auto* linear :
         {&block->qkv_proj, &block->o_proj, &block->gate_up_proj, &block->down_proj}) {
      linears.push_back(linear->get());
    }
  }
  linears.push_back(lm_head_ ? lm_head_.get() : embed_tokens_.get());
  return linears;
}

int64_t Model::weight_bytes() const {
  const int64_t norms = (2 * config_.num_hidden_layers + 1) * config_.hidden_size +
                        (config_.qk_norm ? 2 * config_.num_hidden_layers * config_.head_dim : 0);
  int64_t bytes = norms * size_of(DType::kF32);
  for (const Linear* linear : decode_linears()) bytes += linear->bytes();
  return bytes;
}

std::string Model::kernels() const {
  std::map<std::string, int> counts;
  for (const Linear* linear : decode_linears()) ++counts[linear->kernel()];
  std::string text;
  for (const auto& [kernel, count] : counts) {
    text += concat(text.empty() ? "" : ", ", kernel, " x ", count);
  }
  return text;
}

KvCache Model::make_kv_cache(int64_t blocks, DType dtype) const {
  return backend_.make_kv_cache(config_.kv_cache(blocks, dtype));
}

void Model::check(const StepBatch& batch) const {
  const int64_t size = batch.size(), rows = static_cast<int64_t>(batch.logit_rows.size());
  LOWBIT_CHECK(size > 0 && size <= max_batch_, "a batch of ", size, " tokens; expected 1 to ",
               max_batch_);
  LOWBIT_CHECK(rows <= max_batch_, "logits of ", rows, " rows; expected at most ", max_batch_);
  for (const int32_t id : batch.tokens) {
    LOWBIT_CHECK(id >= 0 && id < config_.vocab_size, "token id ", id,
                 " is outside the vocabulary of ", config_.vocab_size);
  }
  for (const int32_t row : batch.logit_rows) {
    LOWBIT_CHECK(row >= 0 && row < size, "logits of row ", row, " of a batch of ", size);
  }
  for (const SequenceSpan& span : batch.sequences) {
    LOWBIT_CHECK(span.position >= 0 && span.count >= 0 && span.count <= context_ &&
                     span.position <= context_ - span.count,
                 span.count, " tokens at position ", span.position, " exceed the context of ",
                 context_);
  }
}

void Model::run_block(int64_t index, Buffers& a, KvCache& cache) {
  const Block& block = *blocks_[static_cast<size_t>(index)];
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  backend_.add_rms_norm(a.residual, a.hidden, block.input_layernorm, eps, a.hidden);
  block.qkv_proj->forward(a.hidden, a.qkv);
  if (config_.qk_norm) backend_.qk_norm(a.qkv, block.shape, block.q_norm, block.k_norm, eps);
  backend_.rope_and_attend(a.qkv, block.shape, cos_, sin_, cache, index, a.attended);
  block.o_proj->forward(a.attended, a.hidden);

  backend_.add_rms_norm(a.residual, a.hidden, block.post_attention_layernorm, eps, a.hidden);
  block.gate_up_proj->forward(a.hidden, a.gate_up);
  backend_.silu_mul(a.gate_up, a.mlp);
  block.down_proj->forward(a.mlp, a.hidden);
}

// The calls of a step; returns the hidden states of its logit rows.
Tensor Model::run(const StepBatch& batch, KvCache& cache) {
  Buffers a = buffers_->first(batch.size(), static_cast<int64_t>(batch.logit_rows.size()));
  embed_tokens_->embed(batch.tokens, a.residual);
  backend_.zero(a.hidden);
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) run_block(i, a, cache);
  backend_.add_rms_norm(a.residual, a.hidden, norm_, static_cast<float>(config_.rms_norm_eps),
                        a.hidden);
  if (a.gathered.rows > 0) backend_.gather_rows(a.hidden, batch.logit_rows, a.gathered);
  return a.gathered;
}

Tensor Model::hidden_states(const StepBatch& batch, KvCache& cache) {
  check(batch);
  backend_.begin_step(batch);
  return run(batch, cache);
}

void Model::reserve_logits(int64_t rows) {
  Tensor& logits = buffers_->logits;
  if (rows <= logits.rows) return;
  logits = Tensor();  // freed before its successor is allocated
  logits = backend_.allocate(rows, config_.vocab_size);
}

Tensor Model::logits(const Tensor& hidden) {
  reserve_logits(hidden.rows);
  Tensor out = buffers_->logits.first(hidden.rows);
  if (hidden.rows > 0) (lm_head_ ? lm_head_ : embed_tokens_)->forward(hidden, out);
  return out;
}

Tensor Model::forward(const StepBatch& batch, KvCache& cache) {
  check(batch);
  const auto rows = static_cast<int64_t>(batch.logit_rows.size());
  reserve_logits(rows);
  backend_.run_step(batch, cache, this, [&] { logits(run(batch, cache)); });
  return buffers_->logits.first(rows);
}

}  // namespace lowbit

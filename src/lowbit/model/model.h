// Model: a Llama-class decoder on a backend.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/runtime/backend.h"

namespace lowbit {

struct ModelOptions {
  int64_t context = 0;      // positions to prepare for; 0: the model's, at most 8192
  int64_t max_batch = 512;  // tokens in one forward pass at most
  bool progress = true;     // a progress line while loading
};

// Names and shapes of the linears of block i, as the checkpoint stores them, grouped as the model
// multiplies them: {q,k,v}, {o}, {gate,up}, {down}. What quantize walks.
struct LinearSlot {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  int64_t rows = 0;
  int64_t cols = 0;
  bool bias = false;
};
std::vector<std::vector<LinearSlot>> block_linears(const ModelConfig& config, int64_t block);

class Model {
 public:
  // Loads every weight, block by block. The backend must outlive the model. Throws
  // kInvalidArgument if the context is longer than the model's, and what the checkpoint throws.
  Model(const Checkpoint& checkpoint, Backend& backend, const ModelOptions& options = {});
  ~Model();

  const ModelConfig& config() const { return config_; }
  Backend& backend() const { return backend_; }
  int64_t context() const { return context_; }  // positions prepared for
  int64_t max_batch() const { return max_batch_; }
  int64_t weight_bytes() const;  // read by one decode step
  // "linear_q4_avx2 x 120, linear_q8_avx2 x 1": kernels in use, for humans
  std::string kernels() const;

  KvCache make_kv_cache(int64_t blocks, DType dtype = DType::kF16) const;

  // One pass; returns logits [batch.logit_rows.size()][vocab_size], valid until the next call.
  // Throws kInvalidArgument if the batch exceeds max_batch or a position the context.
  Tensor forward(const StepBatch& batch, KvCache& cache);

  // forward() in two halves, for who wants the logits of many rows in pieces: the normalized
  // hidden states [batch.logit_rows.size()][hidden_size], valid until the next pass, and the
  // logits of some of their rows [hidden.rows][vocab_size], valid until the next call.
  Tensor hidden_states(const StepBatch& batch, KvCache& cache);
  Tensor logits(const Tensor& hidden);

 private:
  struct Block;
  struct Buffers;
  void load_embeddings(const Checkpoint& checkpoint);
  std::unique_ptr<Block> load_block(const Checkpoint& checkpoint, int64_t index) const;
  void allocate_buffers();
  void check(const StepBatch& batch) const;
  Tensor run(const StepBatch& batch, KvCache& cache);
  void reserve_logits(int64_t rows);
  void run_block(int64_t index, Buffers& a, KvCache& cache);
  std::vector<const Linear*> decode_linears() const;

  ModelConfig config_;
  Backend& backend_;
  int64_t context_ = 0;
  int64_t max_batch_ = 0;
  std::unique_ptr<Linear> embed_tokens_;
  std::unique_ptr<Linear> lm_head_;  // null: tied to embed_tokens_
  std::vector<std::unique_ptr<Block>> blocks_;
  Tensor norm_;
  Tensor cos_, sin_;
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace lowbit

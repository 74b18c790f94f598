// The line between models and hardware. A model calls these in order, layer by layer; a backend
// chooses kernels and layouts and keeps them private. No call is made per element.
//
// Numerics: every output element is summed in an order that depends neither on the number of
// tokens in the batch nor on the number of threads, so a token's result is the same alone, in a
// batch, in chunks, and on any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/runtime/kv_cache.h"
#include "lowbit/runtime/logit_query.h"
#include "lowbit/tensor/qtensor.h"
#include "lowbit/tensor/tensor.h"

namespace lowbit {

// Consecutive tokens of one sequence within a batch.
struct SequenceSpan {
  int64_t first = 0;                 // index of its first token in the batch
  int64_t count = 0;                 // tokens of it in the batch
  int64_t position = 0;              // position of that first token; earlier ones are cached
  std::vector<int32_t> block_table;  // covers position + count tokens
};

// One forward pass: prefill chunks and decode tokens, mixed at will.
struct StepBatch {
  std::vector<int32_t> tokens;          // token ids, sequence after sequence
  std::vector<SequenceSpan> sequences;  // cover all tokens, in order
  std::vector<int32_t> logit_rows;      // indices into tokens whose logits are wanted

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
};

// A linear layer in a backend's own layout: y[t] = x[t] * W^T + bias.
class Linear {
 public:
  virtual ~Linear() = default;
  // x: [tokens][cols]  y: [tokens][rows]
  virtual void forward(const Tensor& x, Tensor& y) const = 0;
  // Rows of W as an embedding: out[i] = W[ids[i]]. out: [ids.size()][cols]
  virtual void embed(std::span<const int32_t> ids, Tensor& out) const = 0;

  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  virtual int64_t bytes() const = 0;       // read to multiply by one token
  virtual std::string kernel() const = 0;  // name of the row of the kernel table in use
};

// Shape of self-attention in one layer.
struct AttentionShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;  // query head h reads KV head h / (heads / kv_heads)
  int64_t head_dim = 0;
  int64_t sliding_window = 0;  // keys a query sees, its own included (HF's meaning); 0: all

  int64_t q_cols() const { return heads * head_dim; }
  int64_t kv_cols() const { return kv_heads * head_dim; }
  int64_t qkv_cols() const { return q_cols() + 2 * kv_cols(); }
};

// Inputs of linears. kDefault: as a weight's scheme says (QuantScheme::input_bits); where it says
// nothing, the fastest whose cost in perplexity is below 0.5 %. The others: whatever it says.
enum class Activations { kDefault, kF32, kInt8 };

struct BackendOptions {
  int threads = 0;  // 0: all available
  Activations activations = Activations::kDefault;
  bool sync_each_kernel = false;  // cuda: wait for each, so that an error names the one that failed
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;         // "ref", "cpu", "cuda"
  virtual std::string description() const = 0;  // "cpu avx2, 2 threads, int8 activations"
  virtual int threads() const = 0;              // of the host, for work beside the backend's own

  // Linear layer whose rows are those of `parts`, one after another (q,k,v or gate,up); all parts
  // have the same number of columns. Frees each part's codes as soon as it has its own layout.
  virtual std::unique_ptr<Linear> make_linear(std::vector<LinearWeight> parts) = 0;
  // A constant vector (norm weights) where the kernels can read it.
  virtual Tensor upload(std::span<const float> values) = 0;
  // Activations are fp32 on every backend. Their data is the backend's own: host code reads and
  // writes it through the two copies.
  virtual Tensor allocate(int64_t rows, int64_t cols) = 0;
  virtual KvCache make_kv_cache(const KvCacheSpec& spec) = 0;
  // What a cache may take, in bytes, where nobody says: 1 GiB of a host that others use too.
  virtual int64_t cache_bytes() const { return int64_t{1} << 30; }
  // Copies the keys and values of one block, in every layer, to another.
  virtual void copy_block(KvCache& cache, int64_t from, int64_t to) = 0;
  virtual void copy_to_host(const Tensor& from, std::span<float> to) = 0;
  virtual void copy_from_host(std::span<const float> from, Tensor& to) = 0;

  // Must precede the calls of a step; the batch must outlive the step. Throws kInvalidArgument if
  // spans do not cover the tokens or a block table is too short.
  virtual void begin_step(const StepBatch& batch) = 0;
  // A whole step: begin_step(batch), then `calls`, which uses `cache`. A backend may record what
  // the calls do and repeat that instead for later batches of as many tokens, sequences and logit
  // rows: calls of the same `calls_of` must differ in nothing but the batch.
  virtual void run_step(const StepBatch& batch, [[maybe_unused]] const KvCache& cache,
                        [[maybe_unused]] const void* calls_of, const std::function<void()>& calls) {
    begin_step(batch);
    calls();
  }
  virtual void zero(Tensor& x) = 0;
  // residual += hidden; out = residual / rms(residual) * weight. out may be hidden.
  virtual void add_rms_norm(Tensor& residual, const Tensor& hidden, const Tensor& weight, float eps,
                            Tensor& out) = 0;
  // RMSNorm over each head of q and of k, in place, before rotation (Qwen3).
  virtual void qk_norm(Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight,
                       const Tensor& k_weight, float eps) = 0;
  // Rotates q in place (and mixes it as the cache's keys are), and k into the cache with v. cos,
  // sin: [max positions][head_dim / 2], pairs are (i, i + head_dim / 2).
  virtual void rope_and_store(Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                              const Tensor& sin, KvCache& cache, int64_t layer) = 0;
  // Causal attention of the batch's queries over the cache. out: [tokens][q_cols]
  virtual void attention(const Tensor& qkv, const AttentionShape& shape, const KvCache& cache,
                         int64_t layer, Tensor& out) = 0;
  // out = silu(gate) * up. gate_up: [tokens][2 * cols], gate first; out: [tokens][cols]
  virtual void silu_mul(const Tensor& gate_up, Tensor& out) = 0;
  // out[i] = x[rows[i]]
  virtual void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& out) = 0;

  // Answers a query about each row of logits: [queries.size()][vocab_size]. Returns false, with
  // nothing known, where rows are in host memory anyway.
  virtual bool answer([[maybe_unused]] const Tensor& logits,
                      [[maybe_unused]] std::span<const LogitQuery> queries,
                      [[maybe_unused]] std::span<LogitAnswer> answers) {
    return false;
  }

  // rope_and_store, then attention: a backend may make one kernel of it, with the same results.
  virtual void rope_and_attend(Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                               const Tensor& sin, KvCache& cache, int64_t layer, Tensor& out) {
    rope_and_store(qkv, shape, cos, sin, cache, layer);
    attention(qkv, shape, cache, layer, out);
  }
};

// "ref": scalar fp32, the definition of right. "cpu": SIMD, threads, low-bit kernels. "cuda": an
// NVIDIA GPU. Throws kUnsupported listing the names there are, kDevice without a usable device.
std::unique_ptr<Backend> make_backend(const std::string& name, const BackendOptions& options = {});
std::vector<std::string> backend_names();

}  // namespace lowbit

// HostBackend: what backends share: the checks of a step and threads of the host; and for those in
// host memory tensors and the KV cache.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/runtime/backend.h"

namespace lowbit {

class HostBackend : public Backend {
 public:
  explicit HostBackend(int threads) : pool_(std::make_shared<ThreadPool>(threads)) {}

  int threads() const override { return pool_->size(); }
  Tensor upload(std::span<const float> values) override;
  Tensor allocate(int64_t rows, int64_t cols) override;
  KvCache make_kv_cache(const KvCacheSpec& spec) override;
  void copy_block(KvCache& cache, int64_t from, int64_t to) override;
  void copy_to_host(const Tensor& from, std::span<float> to) override;
  void copy_from_host(std::span<const float> from, Tensor& to) override;
  void begin_step(const StepBatch& batch) override;
  void zero(Tensor& x) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& out) override;

 protected:
  // Where a token of the batch stands.
  struct TokenSlot {
    const SequenceSpan* sequence;
    int64_t position;
  };
  const std::vector<TokenSlot>& slots() const { return slots_; }
  const std::vector<SequenceSpan>& sequences() const { return *sequences_; }

  // Calls body(first, last) for chunks of [0, count), in parallel if there are at least two chunks.
  // label: see ThreadPool.
  template <typename Body>
  void for_tokens(const char* label, int64_t count, int64_t chunk, const Body& body) {
    pool_->parallel_for(
        (count + chunk - 1) / chunk,
        [&](int64_t index, int) { body(index * chunk, std::min(count, (index + 1) * chunk)); },
        label);
  }

  // Each throws kInvalidArgument naming `op` and the operands.
  // Throws kUnsupported unless the cache is of one of these types.
  void check_cache_spec(const KvCacheSpec& spec, std::initializer_list<DType> types) const;
  void check_blocks(const char* op, const KvCache& cache) const;
  static void check_gather(const Tensor& x, std::span<const int32_t> rows, const Tensor& out);
  void check_cache(const char* op, const AttentionShape& shape, const KvCache& cache,
                   int64_t layer) const;
  void check_rope(const Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                  const Tensor& sin, const KvCache& cache, int64_t layer) const;
  void check_attention(const Tensor& qkv, const AttentionShape& shape, const KvCache& cache,
                       int64_t layer, const Tensor& out) const;
  void check_norm(const Tensor& residual, const Tensor& hidden, const Tensor& weight,
                  const Tensor& out) const;
  void check_qk_norm(const Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight,
                     const Tensor& k_weight) const;
  void check_silu(const Tensor& gate_up, const Tensor& out) const;

  // For make_linear and description(): which widths schemes ask for, and ", but inputs of 4 and 8
  // bits a token ..." or that they are not rounded so; empty if no scheme asks.
  void note_input_bits(const std::vector<LinearWeight>& parts);
  void forget_input_bits() { input_bits_.clear(); }
  std::string input_note(bool rounded) const;

  std::shared_ptr<ThreadPool> pool_;

 private:
  std::set<int> input_bits_;  // that schemes of linears ask for
  const std::vector<SequenceSpan>* sequences_ = nullptr;
  std::vector<TokenSlot> slots_;
};

// Throws kInvalidArgument unless `from` and `to` are two blocks of the cache.
void check_block_copy(const KvCacheSpec& spec, int64_t from, int64_t to);

// Writes a token's key or value to a page of a cache of host memory. x: [head_dim]
void store_kv(const KvCacheSpec& spec, const float* x, int64_t token, uint8_t* page);

// Shared by every host Linear. Throws kInvalidArgument.
void check_linear_operands(const Linear& linear, const Tensor& x, const Tensor& y);
void check_embed_operands(const Linear& linear, std::span<const int32_t> ids, const Tensor& out);
// Throws kInvalidArgument unless there are parts, all of the same width, with biases that fit, and
// validate() accepts each.
void check_parts(const std::vector<LinearWeight>& parts);

}  // namespace lowbit

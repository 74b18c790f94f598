// Causal attention of whole sequences in fp32, forward and backward, for DecoderBlock. No score
// matrix is kept: a strip of queries at a time, and backward computes its scores again.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/runtime/backend.h"
#include "lowbit/runtime/cpu/gemm.h"

namespace lowbit {

// q, out: [sequences * length][heads * head_dim]  k, v: [sequences * length][kv_heads * head_dim]
struct AttentionBatch {
  AttentionShape shape;
  int64_t sequences = 0;
  int64_t length = 0;
};

class BlockAttention {
 public:
  explicit BlockAttention(ThreadPool& pool);
  ~BlockAttention();
  BlockAttention(BlockAttention&& other) noexcept;

  void forward(const AttentionBatch& batch, const float* q, const float* k, const float* v,
               float* out);
  // Writes dq, dk, dv from dout; out is forward's.
  void backward(const AttentionBatch& batch, const float* q, const float* k, const float* v,
                const float* out, const float* dout, float* dq, float* dk, float* dv);

 private:
  struct Worker;  // one thread's buffers
  ThreadPool& pool_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace lowbit

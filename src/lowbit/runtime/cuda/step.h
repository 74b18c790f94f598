// What the kernels of a step need to know about its batch, in device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <span>

#include "lowbit/runtime/backend.h"
#include "lowbit/runtime/cuda/kernels.h"

namespace lowbit::cuda {

// Ids in device memory, and the same in host memory.
struct KnownIds {
  std::span<const int32_t> host;
  const int32_t* device = nullptr;
};

// Laid out so that addresses depend only on the numbers of tokens, sequences and logit rows: a
// recorded step finds the next batch where the last one was.
class StepData {
 public:
  ~StepData();

  // Copies the batch, whose spans fit (HostBackend::begin_step). Returns whether addresses of
  // earlier steps became invalid.
  bool upload(const StepBatch& batch, cudaStream_t stream);

  KnownIds tokens() const { return known(tokens_, count_); }
  KnownIds logit_rows() const { return known(logit_rows_, positions_ - logit_rows_); }
  StepView view() const;
  // Blocks of at most `queries` tokens (a power of 2 up to 16) of one sequence.
  const QueryBlock* query_blocks(int queries, int& count) const;
  int pages() const { return pages_; }       // of the longest sequence
  bool decodes() const { return decodes_; }  // one token of each sequence

 private:
  static constexpr int kBlockLists = 5;
  const int32_t* at(int64_t offset) const { return static_cast<int32_t*>(device_.get()) + offset; }
  KnownIds known(int64_t offset, int64_t count) const {
    return {{host_ + offset, static_cast<size_t>(count)}, at(offset)};
  }
  bool reserve(int64_t words, cudaStream_t stream);
  void lay_out(const StepBatch& batch);
  void fill(const StepBatch& batch, int32_t* words) const;

  std::shared_ptr<void> device_;
  int32_t* host_ = nullptr;  // pinned
  int64_t capacity_ = 0;     // words
  cudaEvent_t copied_ = nullptr;
  int count_ = 0;
  int pages_ = 0;
  bool decodes_ = false;
  int64_t tokens_ = 0, logit_rows_ = 0, positions_ = 0, offsets_ = 0, tables_ = 0, words_ = 0;
  int64_t lists_[kBlockLists] = {};
  int list_counts_[kBlockLists] = {};
};

}  // namespace lowbit::cuda

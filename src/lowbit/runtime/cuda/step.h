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

// Spans of up to kShortSpan tokens, or of more.
enum class Spans { kShort, kLong };
constexpr int kShortSpan = 64;

struct QueryBlocks {
  const QueryBlock* blocks = nullptr;  // in device memory
  int count = 0;
  int most_queries = 1;   // of a block
  int64_t key_spans = 0;  // of all blocks, of kAttentionSpan keys
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
  // Blocks of at most `queries` tokens (rounded down to a power of 2; of short spans at most 16, of
  // long ones 128) of one sequence.
  QueryBlocks query_blocks(Spans which, int queries) const;
  int pages() const { return pages_; }       // of the longest sequence
  bool decodes() const { return decodes_; }  // one token of each sequence

 private:
  // Lists of blocks of 1, 2, 4, ... tokens; first those of short spans.
  static constexpr int kShortLists = 5, kLongLists = 8, kBlockLists = kShortLists + kLongLists;
  struct BlockList {
    int count = 0;
    int64_t key_spans = 0, offset = 0;
  };
  // Calls body(list, tokens of a block) for the lists that a span belongs to.
  template <typename Body>
  void for_lists(const SequenceSpan& span, const Body& body) {
    const bool small = span.count <= kShortSpan;
    BlockList* lists = small ? lists_ : lists_ + kShortLists;
    for (int i = 0; i < (small ? kShortLists : kLongLists); ++i) body(lists[i], int64_t{1} << i);
  }
  int64_t lay_out_blocks(const StepBatch& batch, int64_t first);
  void fill_blocks(const StepBatch& batch, int32_t* words);
  const int32_t* at(int64_t offset) const { return static_cast<int32_t*>(device_.get()) + offset; }
  KnownIds known(int64_t offset, int64_t count) const {
    return {{host_ + offset, static_cast<size_t>(count)}, at(offset)};
  }
  bool reserve(int64_t words, cudaStream_t stream);
  void lay_out(const StepBatch& batch);
  void fill(const StepBatch& batch, int32_t* words);

  std::shared_ptr<void> device_;
  int32_t* host_ = nullptr;  // pinned
  int64_t capacity_ = 0;     // words
  cudaEvent_t copied_ = nullptr;
  int count_ = 0;
  int pages_ = 0;
  bool decodes_ = false;
  int64_t tokens_ = 0, logit_rows_ = 0, positions_ = 0, offsets_ = 0, tables_ = 0, words_ = 0;
  BlockList lists_[kBlockLists];
};

}  // namespace lowbit::cuda

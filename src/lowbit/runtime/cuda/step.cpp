#include "lowbit/runtime/cuda/step.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "lowbit/runtime/cuda/device.h"

namespace lowbit::cuda {

namespace {

constexpr int64_t kBlockWords = sizeof(QueryBlock) / sizeof(int32_t);

int64_t pages_of(const SequenceSpan& span) {
  return (span.position + span.count + kBlockTokens - 1) / kBlockTokens;
}

}  // namespace

StepData::~StepData() {
  if (copied_ != nullptr) cudaEventDestroy(copied_);
  if (host_ != nullptr) cudaFreeHost(host_);
}

bool StepData::reserve(int64_t words, cudaStream_t stream) {
  if (copied_ == nullptr) {
    LOWBIT_CUDA(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming));
  } else {
    LOWBIT_CUDA(cudaEventSynchronize(copied_));  // the last copy has read host_
  }
  if (words <= capacity_) return false;
  LOWBIT_CUDA(cudaStreamSynchronize(stream));
  if (host_ != nullptr) LOWBIT_CUDA(cudaFreeHost(host_));
  host_ = nullptr;
  capacity_ = 0;
  const int64_t capacity = std::max<int64_t>(2 * words, 16384);
  void* host = nullptr;
  LOWBIT_CUDA(cudaMallocHost(&host, static_cast<size_t>(capacity) * 4));
  host_ = static_cast<int32_t*>(host);
  device_.reset();
  device_ = allocate(static_cast<size_t>(capacity) * 4, "a step's batch");
  capacity_ = capacity;
  return true;
}

void StepData::lay_out(const StepBatch& batch) {
  count_ = static_cast<int>(batch.size());
  pages_ = 0;
  decodes_ = true;
  int64_t table_words = 0;
  for (const SequenceSpan& span : batch.sequences) {
    pages_ = std::max(pages_, static_cast<int>(pages_of(span)));
    decodes_ = decodes_ && span.count == 1;
    table_words += pages_of(span);
  }
  tokens_ = 0;
  logit_rows_ = tokens_ + count_;
  positions_ = logit_rows_ + static_cast<int64_t>(batch.logit_rows.size());
  offsets_ = positions_ + count_;
  tables_ = lay_out_blocks(batch, offsets_ + count_);
  words_ = tables_ + table_words;
}

// Returns where what follows the lists begins.
int64_t StepData::lay_out_blocks(const StepBatch& batch, int64_t first) {
  for (BlockList& list : lists_) list = {};
  for (const SequenceSpan& span : batch.sequences) {
    for_lists(span, [&](BlockList& list, int64_t queries) {
      list.count += static_cast<int>((span.count + queries - 1) / queries);
    });
  }
  for (BlockList& list : lists_) {
    list.offset = first;
    first += kBlockWords * (list.count + 1);
  }
  return first;
}

void StepData::fill_blocks(const StepBatch& batch, int32_t* words) {
  int table = 0;
  int32_t* next[kBlockLists];
  for (int i = 0; i < kBlockLists; ++i) next[i] = words + lists_[i].offset;
  const auto append = [&](BlockList& list, const QueryBlock& block) {
    int32_t*& to = next[&list - lists_];
    std::memcpy(to, &block, sizeof(block));
    to += kBlockWords;
  };
  for (const SequenceSpan& span : batch.sequences) {
    for_lists(span, [&](BlockList& list, int64_t queries) {
      for (int64_t i = 0; i < span.count; i += queries) {
        const int64_t count = std::min(queries, span.count - i), position = span.position + i;
        append(list, {static_cast<int>(span.first + i), static_cast<int>(count), table,
                      static_cast<int>(span.position), static_cast<int>(position),
                      static_cast<int>(list.key_spans)});
        list.key_spans += (position + count - 1) / kAttentionSpan + 1;
      }
    });
    table += static_cast<int>(pages_of(span));
  }
  for (BlockList& list : lists_) {
    append(list, {0, 0, 0, 0, 0, static_cast<int>(list.key_spans)});
  }
}

void StepData::fill(const StepBatch& batch, int32_t* words) {
  std::copy(batch.tokens.begin(), batch.tokens.end(), words + tokens_);
  std::copy(batch.logit_rows.begin(), batch.logit_rows.end(), words + logit_rows_);
  int64_t table = 0;
  for (const SequenceSpan& span : batch.sequences) {
    for (int64_t i = 0; i < span.count; ++i) {
      words[positions_ + span.first + i] = static_cast<int32_t>(span.position + i);
      words[offsets_ + span.first + i] = static_cast<int32_t>(table);
    }
    std::copy_n(span.block_table.begin(), pages_of(span), words + tables_ + table);
    table += pages_of(span);
  }
  fill_blocks(batch, words);
}

bool StepData::upload(const StepBatch& batch, cudaStream_t stream) {
  lay_out(batch);
  const bool moved = reserve(words_, stream);
  fill(batch, host_);
  LOWBIT_CUDA(cudaMemcpyAsync(device_.get(), host_, static_cast<size_t>(words_) * 4,
                              cudaMemcpyHostToDevice, stream));
  LOWBIT_CUDA(cudaEventRecord(copied_, stream));
  return moved;
}

StepView StepData::view() const { return {at(positions_), at(offsets_), at(tables_), count_}; }

QueryBlocks StepData::query_blocks(Spans which, int queries) const {
  const int lists = which == Spans::kShort ? kShortLists : kLongLists;
  const int power =
      std::min(static_cast<int>(std::bit_width(static_cast<unsigned>(queries))), lists);
  const BlockList& list = lists_[(which == Spans::kShort ? 0 : kShortLists) + power - 1];
  return {reinterpret_cast<const QueryBlock*>(at(list.offset)), list.count, 1 << (power - 1),
          list.key_spans};
}

}  // namespace lowbit::cuda

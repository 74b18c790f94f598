#include "lowbit/runtime/cuda/step.h"

#include <algorithm>
#include <bit>

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
  std::fill_n(list_counts_, kBlockLists, 0);
  for (const SequenceSpan& span : batch.sequences) {
    pages_ = std::max(pages_, static_cast<int>(pages_of(span)));
    decodes_ = decodes_ && span.count == 1;
    table_words += pages_of(span);
    for (int list = 0; list < kBlockLists; ++list) {
      list_counts_[list] += static_cast<int>((span.count + (1 << list) - 1) >> list);
    }
  }
  tokens_ = 0;
  logit_rows_ = tokens_ + count_;
  positions_ = logit_rows_ + static_cast<int64_t>(batch.logit_rows.size());
  offsets_ = positions_ + count_;
  int64_t next = (offsets_ + count_ + 3) / 4 * 4;
  for (int list = 0; list < kBlockLists; ++list) {
    lists_[list] = next;
    next += kBlockWords * list_counts_[list];
  }
  tables_ = next;
  words_ = next + table_words;
}

void StepData::fill(const StepBatch& batch, int32_t* words) const {
  std::copy(batch.tokens.begin(), batch.tokens.end(), words + tokens_);
  std::copy(batch.logit_rows.begin(), batch.logit_rows.end(), words + logit_rows_);
  int32_t* lists[kBlockLists];
  for (int list = 0; list < kBlockLists; ++list) lists[list] = words + lists_[list];
  int64_t table = 0;
  for (const SequenceSpan& span : batch.sequences) {
    for (int64_t i = 0; i < span.count; ++i) {
      words[positions_ + span.first + i] = static_cast<int32_t>(span.position + i);
      words[offsets_ + span.first + i] = static_cast<int32_t>(table);
    }
    for (int list = 0; list < kBlockLists; ++list) {
      for (int64_t i = 0; i < span.count; i += int64_t{1} << list) {
        *lists[list]++ = static_cast<int32_t>(span.first + i);
        *lists[list]++ = static_cast<int32_t>(std::min(int64_t{1} << list, span.count - i));
        *lists[list]++ = static_cast<int32_t>(table);
        *lists[list]++ = static_cast<int32_t>(span.position);
      }
    }
    std::copy_n(span.block_table.begin(), pages_of(span), words + tables_ + table);
    table += pages_of(span);
  }
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

const QueryBlock* StepData::query_blocks(int queries, int& count) const {
  const int list = std::min(static_cast<int>(std::bit_width(static_cast<unsigned>(queries))) - 1,
                            kBlockLists - 1);
  count = list_counts_[list];
  return reinterpret_cast<const QueryBlock*>(at(lists_[list]));
}

}  // namespace lowbit::cuda

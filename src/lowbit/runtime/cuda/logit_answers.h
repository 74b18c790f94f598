// Backend::answer of the CUDA backend.
#pragma once

#include <cuda_runtime_api.h>

#include <span>

#include "lowbit/runtime/cuda/device.h"
#include "lowbit/runtime/logit_query.h"
#include "lowbit/tensor/tensor.h"

namespace lowbit::cuda {

// Memory that questions about rows of logits need, on both sides.
class LogitAnswers {
 public:
  LogitAnswers() = default;
  LogitAnswers(const LogitAnswers&) = delete;
  LogitAnswers& operator=(const LogitAnswers&) = delete;
  ~LogitAnswers();

  // logits: [queries.size()][vocab_size]. Waits for the stream. Vocabularies that one block of
  // threads cannot hold the sums of are left unknown.
  void answer(const Tensor& logits, std::span<const LogitQuery> queries,
              std::span<LogitAnswer> answers, int shared_bytes, cudaStream_t stream);

 private:
  void* pinned(size_t bytes);

  Scratch scratch_{"maxima of logits"}, results_{"answers about logits"};
  void* host_ = nullptr;
  size_t host_bytes_ = 0;
};

}  // namespace lowbit::cuda

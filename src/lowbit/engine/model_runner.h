// ModelRunner: runs the plans of a step as one forward pass, and draws the tokens that follow.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/engine/logprobs.h"
#include "lowbit/engine/sampler.h"
#include "lowbit/engine/sequence.h"
#include "lowbit/model/model.h"

namespace lowbit {

class ModelRunner {
 public:
  ModelRunner(Model& model, int64_t kv_blocks, DType kv_dtype);

  // Extends every sequence whose plan reaches its end by the tokens drawn, and `computed` by what
  // now has keys and values. A fault of one sequence ends its answer; throws what the forward pass
  // throws.
  void run(std::span<Sequence* const> sequences);
  void copy_block(int32_t from, int32_t to);

  double model_seconds() const { return model_seconds_; }    // in forward passes so far
  double sample_seconds() const { return sample_seconds_; }  // from logits to tokens so far

 private:
  // A row of logits that is wanted.
  struct Row {
    Sequence* sequence;
    int64_t position;  // of the token that was run; the row tells about the next
    std::optional<int32_t> drawn = std::nullopt;  // without the row, which is not on the host then
  };
  // What one thread needs to draw.
  struct Workspace {
    Sampler sampler;
    LogprobReader logprobs;
    std::vector<uint32_t> mask;
  };

  StepBatch build(std::span<Sequence* const> sequences);
  void add_rows(Sequence& sequence, int64_t first_token, StepBatch& batch);
  void run_in_pieces(const StepBatch& batch);
  LogitQuery query_of(const Row& row) const;
  bool ask(const Tensor& logits, std::span<Row> rows);
  void fetch(const Tensor& logits, size_t first);
  void read_rows(size_t begin, size_t end);
  void read_group(size_t begin, size_t end, size_t first, Workspace& workspace);
  void read_row(const Row& row, std::span<const float> logits, Workspace& workspace);
  int32_t draw(const Row& row, std::span<const float> logits, Workspace& workspace);

  Model& model_;
  KvCache cache_;
  ThreadPool threads_;
  std::vector<Workspace> workspaces_;  // one per thread
  std::vector<Row> rows_;
  std::vector<float> logits_;  // [rows at once][vocab_size], of rows without a drawn token
  std::vector<LogitQuery> queries_;
  std::vector<LogitAnswer> answers_;
  double model_seconds_ = 0;
  double sample_seconds_ = 0;
};

}  // namespace lowbit

// LogprobReader: natural logarithms of softmax(logits).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowbit/engine/logit_row.h"
#include "lowbit/engine/request.h"

namespace lowbit {

// Workspace of one thread.
class LogprobReader {
 public:
  // Of `id` and the `top` likeliest tokens. logits: [vocab]. Throws kInvalidArgument as
  // chunk_maxima() does.
  PositionLogprobs read(std::span<const float> logits, int32_t id, int top);

 private:
  std::vector<float> maxima_;
  std::vector<double> sums_;
  std::vector<Candidate> candidates_;
};

}  // namespace lowbit

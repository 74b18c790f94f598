// DivergenceLoss: how far a model's predictions are from the original model's, and which way each
// of its last hidden states should go.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/runtime/cpu/gemm.h"

namespace lowbit {

class DivergenceLoss {
 public:
  // norm: [hidden], the final norm's weight; head: [vocab][hidden]. The pool must outlive this.
  DivergenceLoss(std::vector<float> norm, float eps, std::vector<float> head, ThreadPool& pool);

  // Mean over tokens of KL(p || q) in nats, p the distribution of the next token after the final
  // norm and the head of `target`, q that of x; dx = its gradient. x, target, dx:
  // [tokens][hidden], as the last block leaves them. Sums do not depend on threads.
  double differentiate(std::span<const float> x, std::span<const float> target,
                       std::span<float> dx);

 private:
  void differentiate_part(const float* x, const float* target, int64_t tokens, float share,
                          double* losses, float* dx);

  std::vector<float> norm_, head_;
  float eps_;
  int64_t hidden_, vocab_;
  ThreadPool& pool_;
  cpu::Gemm gemm_;
  std::vector<float> normed_;  // [2][tokens][hidden]: x's, then the target's
  std::vector<float> logits_;  // [2][tokens][vocab]
  std::vector<float> slopes_;  // [tokens][hidden] of normed x
};

}  // namespace lowbit

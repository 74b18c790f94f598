#include "lowbit/quantize/divergence_loss.h"

#include <algorithm>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/base/vector_math.h"
#include "lowbit/quantize/rms_norm.h"
#include "lowbit/runtime/cpu/fit_kernels.h"

namespace lowbit {

namespace {

constexpr int64_t kTokensAtOnce = 512;  // bounds the logits in memory

// Of one token. logits becomes dKL/dlogits * share; target's logits become probabilities.
double divergence(float* logits, float* target, int64_t vocab, float share) {
  const cpu::FitKernels& kernels = cpu::fit_kernels();
  // KL = sum p (t - s) - log sum e^t + log sum e^s, t and s the logits, p of t.
  std::vector<float> differences(static_cast<size_t>(vocab));
  for (int64_t i = 0; i < vocab; ++i) differences[i] = target[i] - logits[i];
  const float target_sum = kernels.softmax(target, vocab, 1.f);
  const float sum = kernels.softmax(logits, vocab, 1.f);
  const float mean = sum_of(vocab, [&](int64_t i) { return target[i] * differences[i]; });
  for (int64_t i = 0; i < vocab; ++i) logits[i] = (logits[i] - target[i]) * share;
  return static_cast<double>(mean) - target_sum + sum;
}

}  // namespace

DivergenceLoss::DivergenceLoss(std::vector<float> norm, float eps, std::vector<float> head,
                               ThreadPool& pool)
    : norm_(std::move(norm)),
      head_(std::move(head)),
      eps_(eps),
      hidden_(static_cast<int64_t>(norm_.size())),
      vocab_(static_cast<int64_t>(head_.size()) / std::max<int64_t>(hidden_, 1)),
      pool_(pool),
      gemm_(&pool) {
  LOWBIT_CHECK(hidden_ > 0 && vocab_ > 0 && vocab_ * hidden_ == static_cast<int64_t>(head_.size()),
               "a head of ", head_.size(), " weights after a norm of ", hidden_);
}

double DivergenceLoss::differentiate(std::span<const float> x, std::span<const float> target,
                                     std::span<float> dx) {
  LOWBIT_CHECK(!x.empty() && x.size() == target.size() && x.size() == dx.size() &&
                   static_cast<int64_t>(x.size()) % hidden_ == 0,
               "the divergence of ", x.size(), " and ", target.size(), " values");
  const int64_t tokens = static_cast<int64_t>(x.size()) / hidden_;
  std::vector<double> losses(static_cast<size_t>(tokens));
  for (int64_t first = 0; first < tokens; first += kTokensAtOnce) {
    const int64_t count = std::min(kTokensAtOnce, tokens - first), at = first * hidden_;
    differentiate_part(x.data() + at, target.data() + at, count, 1.f / static_cast<float>(tokens),
                       losses.data() + first, dx.data() + at);
  }
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(tokens);
}

void DivergenceLoss::differentiate_part(const float* x, const float* target, int64_t tokens,
                                        float share, double* losses, float* dx) {
  normed_.resize(static_cast<size_t>(2 * tokens * hidden_));
  logits_.resize(static_cast<size_t>(2 * tokens * vocab_));
  slopes_.resize(static_cast<size_t>(tokens * hidden_));
  pool_.parallel_for(2 * tokens, [&](int64_t row, int) {
    const float* from = row < tokens ? x + row * hidden_ : target + (row - tokens) * hidden_;
    rms_norm(from, norm_, eps_, normed_.data() + row * hidden_);
  });
  gemm_.multiply(2 * tokens, vocab_, hidden_, cpu::rows_of(normed_.data(), hidden_),
                 cpu::transposed(head_.data(), hidden_), logits_.data(), vocab_);
  pool_.parallel_for(tokens, [&](int64_t token, int) {
    losses[token] = divergence(logits_.data() + token * vocab_,
                               logits_.data() + (tokens + token) * vocab_, vocab_, share);
  });
  gemm_.multiply(tokens, hidden_, vocab_, cpu::rows_of(logits_.data(), vocab_),
                 cpu::rows_of(head_.data(), hidden_), slopes_.data(), hidden_);
  pool_.parallel_for(tokens, [&](int64_t token, int) {
    const int64_t at = token * hidden_;
    rms_norm_backward(x + at, norm_, eps_, slopes_.data() + at, dx + at, false);
  });
}

}  // namespace lowbit

#include "lowbit/quantize/cuda_learning.h"

#include <cmath>

#include "lowbit/quantize/learning_passes.h"
#include "lowbit/runtime/cuda/fit.h"
#include "lowbit/runtime/cuda/fit_kernels.h"

namespace lowbit {

template class BasicDecoderBlock<cuda::Fit>;

namespace {

constexpr int64_t kLogitTokens = 512;  // of the whole model's loss at once: bounds its memory

// LearnedRounding with its parameters on the device.
class DeviceRounding {
 public:
  template <typename Start>
  DeviceRounding(cuda::Fit& fit, const BlockWeights::Linear& linear, const QuantScheme& scheme,
                 Start start, ThreadPool& pool)
      : fit_(fit), linear_(linear), scheme_(scheme), pool_(pool) {
    const LearnedRounding host(linear, scheme, std::move(start), pool);
    const RoundingState& state = host.state();
    weight_ = fit.uploaded(linear.weight);
    offsets_ = fit.uploaded(state.offsets);
    first_ = fit.uploaded(state.first);
    stretch_ = fit.uploaded(state.stretch);
    second_ = fit.uploaded(state.second);
    shrink_high_ = fit.uploaded(state.shrink_high);
  }

  void dequantize(cuda::DeviceArray& weight) const {
    cuda::dequantize_rounding(parameters(), weight.data(), fit_.stream());
  }
  void descend(const cuda::DeviceArray& gradient, float rate) {
    cuda::descend_rounding(parameters(), gradient.data(), rate, fit_.stream());
  }
  void adam(const cuda::DeviceArray& gradient, const AdamStep& step) {
    const std::pair<cuda::DeviceArray*, const cuda::DeviceArray*> moments[] = {
        {&offset_mean_, &offsets_},     {&offset_square_, &offsets_},
        {&stretch_mean_, &stretch_},    {&stretch_square_, &stretch_},
        {&shrink_mean_, &shrink_high_}, {&shrink_square_, &shrink_high_}};
    for (const auto& [moment, of] : moments) moment->resize(of->size());
    const auto number = static_cast<float>(step.number);
    cuda::adam_rounding(
        parameters(),
        {offset_mean_.data(), offset_square_.data(), stretch_mean_.data(), stretch_square_.data(),
         shrink_mean_.data(), shrink_square_.data()},
        gradient.data(),
        {step.rate, step.range_rate, 1.f - std::pow(0.9f, number), 1.f - std::pow(0.98f, number)},
        fit_.stream());
  }

  RoundingState state() const {
    RoundingState state;
    download(offsets_, state.offsets);
    download(first_, state.first);
    download(stretch_, state.stretch);
    download(second_, state.second);
    download(shrink_high_, state.shrink_high);
    return state;
  }
  QTensor encode() const { return LearnedRounding(linear_, scheme_, state(), pool_).encode(); }

 private:
  // What the kernels change is not this object's, in C++'s eyes.
  cuda::RoundingParameters parameters() const {
    const auto at = [](const cuda::DeviceArray& array) { return const_cast<float*>(array.data()); };
    return {static_cast<int64_t>(first_.size()),
            scheme_.group_size,
            scheme_.bits,
            scheme_.zero == Zero::kNone,
            weight_.data(),
            at(offsets_),
            at(first_),
            at(stretch_),
            at(second_),
            at(shrink_high_)};
  }
  void download(const cuda::DeviceArray& from, std::vector<float>& to) const {
    to.resize(from.size());
    if (!to.empty()) fit_.download(from.data(), to);
  }

  cuda::Fit& fit_;
  const BlockWeights::Linear& linear_;
  QuantScheme scheme_;
  ThreadPool& pool_;
  cuda::DeviceArray weight_, offsets_, first_, stretch_, second_, shrink_high_;
  cuda::DeviceArray offset_mean_, offset_square_, stretch_mean_, stretch_square_, shrink_mean_,
      shrink_square_;  // of Adam
};

// DivergenceLoss on the device.
class DeviceLoss {
 public:
  DeviceLoss(cuda::Fit& fit, const std::vector<float>& norm, float eps,
             const std::vector<float>& head)
      : fit_(fit),
        norm_(fit.uploaded(norm)),
        head_(fit.uploaded(head)),
        eps_(eps),
        hidden_(static_cast<int64_t>(norm.size())),
        vocab_(static_cast<int64_t>(head.size()) / std::max<int64_t>(hidden_, 1)) {
    LOWBIT_CHECK(hidden_ > 0 && vocab_ > 0 && vocab_ * hidden_ == static_cast<int64_t>(head.size()),
                 "a head of ", head.size(), " weights after a norm of ", hidden_);
  }

  double differentiate(const cuda::DeviceArray& x, const cuda::DeviceArray& target,
                       cuda::DeviceArray& dx) {
    const int64_t tokens = static_cast<int64_t>(x.size()) / hidden_;
    losses_.resize(static_cast<size_t>(tokens));
    for (int64_t first = 0; first < tokens; first += kLogitTokens) {
      const int64_t count = std::min(kLogitTokens, tokens - first), at = first * hidden_;
      logits(target.data() + at, count, target_logits_);
      logits(x.data() + at, count, logits_);
      cuda::divergence(logits_.data(), target_logits_.data(), count, vocab_,
                       1.f / static_cast<float>(tokens), losses_.data() + first, fit_.stream());
      slopes_.resize(normed_.size());
      fit_.multiply(count, hidden_, vocab_, rows_of(logits_.data(), vocab_),
                    rows_of(head_.data(), hidden_), slopes_.data(), hidden_);
      fit_.rms_norm_backward(x.data() + at, norm_, eps_, count, slopes_.data(), dx.data() + at,
                             false);
    }
    std::vector<float> losses(losses_.size());
    fit_.download(losses_.data(), losses);
    return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(tokens);
  }

 private:
  void logits(const float* x, int64_t tokens, cuda::DeviceArray& out) {
    normed_.resize(static_cast<size_t>(tokens * hidden_));
    out.resize(static_cast<size_t>(tokens * vocab_));
    fit_.rms_norm(x, norm_, eps_, tokens, normed_.data());
    fit_.multiply(tokens, vocab_, hidden_, rows_of(normed_.data(), hidden_),
                  transposed(head_.data(), hidden_), out.data(), vocab_);
  }

  cuda::Fit& fit_;
  cuda::DeviceArray norm_, head_;
  float eps_;
  int64_t hidden_, vocab_;
  cuda::DeviceArray normed_, slopes_, logits_, target_logits_, losses_;
};

struct CudaKit {
  using Fit = cuda::Fit;
  using Rounding = DeviceRounding;
  using Loss = DeviceLoss;
  static constexpr int64_t kTokensOfForward = 8192;

  static Fit fit(ThreadPool&) { return {}; }
  template <typename Start>
  static std::unique_ptr<Rounding> rounding(Fit& fit, const BlockWeights::Linear& linear,
                                            const QuantScheme& scheme, Start start,
                                            ThreadPool& pool) {
    return std::make_unique<Rounding>(fit, linear, scheme, std::move(start), pool);
  }
  static Loss loss(Fit& fit, const std::vector<float>& norm, float eps,
                   const std::vector<float>& head, ThreadPool&) {
    return {fit, norm, eps, head};
  }
};

}  // namespace

std::unique_ptr<Learning> make_cuda_learning(ThreadPool& pool) {
  const cuda::Fit device;  // throws if there is none
  return std::make_unique<detail::BasicLearning<CudaKit>>(pool);
}

}  // namespace lowbit

#include "lowbit/quantize/learning.h"

#include "lowbit/quantize/cuda_learning.h"
#include "lowbit/quantize/divergence_loss.h"
#include "lowbit/quantize/learning_passes.h"

namespace lowbit {

namespace {

struct HostKit {
  using Fit = HostFit;
  using Rounding = LearnedRounding;
  using Loss = DivergenceLoss;
  static constexpr int64_t kTokensOfForward = 1;  // a sample at a time

  static Fit fit(ThreadPool& pool) { return {pool}; }
  // `start`: importance of the columns, or a RoundingState.
  template <typename Start>
  static std::unique_ptr<Rounding> rounding(Fit&, const BlockWeights::Linear& linear,
                                            const QuantScheme& scheme, Start start,
                                            ThreadPool& pool) {
    return std::make_unique<Rounding>(linear, scheme, std::move(start), pool);
  }
  static Loss loss(Fit&, std::vector<float> norm, float eps, std::vector<float> head,
                   ThreadPool& pool) {
    return {std::move(norm), eps, std::move(head), pool};
  }
};

}  // namespace

std::unique_ptr<Learning> make_learning(const std::string& backend, ThreadPool& pool) {
  if (backend == "cpu") return std::make_unique<detail::BasicLearning<HostKit>>(pool);
  LOWBIT_CHECK(backend == "cuda", "methods that learn run on the backends cpu and cuda, not ",
               backend);
  return make_cuda_learning(pool);
}

}  // namespace lowbit

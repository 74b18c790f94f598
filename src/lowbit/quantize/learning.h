// Learning: where methods that fit weights to data compute, the CPU or a GPU. Both go through the
// same passes (learning_passes.h); on a GPU matrix products round their inputs to TF32.
#pragma once

#include <memory>
#include <string>

#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/method_options.h"
#include "lowbit/quantize/refine.h"

namespace lowbit {

class Learning {
 public:
  virtual ~Learning() = default;

  // What the block makes of each sample; `from` and `to` may be the same.
  virtual void forward(BlockWeights weights, const std::shared_ptr<const RopeTables>& rope,
                       const HiddenStates& from, HiddenStates& to) const = 0;
  virtual BlockResult autoround(BlockJob& job, const AutoRoundOptions& options) const = 0;
  virtual std::unique_ptr<Refinement> refinement(const RefinementJob& job) const = 0;
};

// backend: "cpu" or "cuda". The pool must outlive it. Throws kInvalidArgument naming the backends
// that there are, kDevice if there is no usable GPU.
std::unique_ptr<Learning> make_learning(const std::string& backend, ThreadPool& pool);

}  // namespace lowbit

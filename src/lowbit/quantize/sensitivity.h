// How much a model's predictions depend on each of its weights, and so what rounding them costs.
//
// Labels are drawn from the model's own predictions; g is the slope of the sum over a window's
// tokens of -log p(label). The mean of g^2 over windows, divided by a window's tokens, estimates
// the diagonal of the Fisher information F of one prediction. If weights change by d, and the
// changes are as good as independent of each other, as rounding errors are, then predictions
// diverge by
//
//   KL = 1/2 sum F d^2     nats a token, to second order.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "lowbit/base/file.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/quantize/block_weights.h"
#include "lowbit/quantize/calibration.h"
#include "lowbit/tensor/scheme.h"

namespace lowbit {

struct SensitivityOptions {
  int64_t windows = 16;  // spread over the calibration data, at most as many as it has
  int64_t tokens = 256;  // the first of each window
  uint64_t seed = 42;    // of the labels
  int64_t memory_bytes = int64_t{4} << 30;  // hidden states beyond it go to files in `spill`
  fs::path spill = {};
};

// By BlockLinear: F of each weight, [rows][cols].
using BlockFisher = std::array<std::vector<float>, kBlockLinears>;

using SensitivityVisitor =
    std::function<void(int64_t index, const BlockWeights& block, const BlockFisher& fisher)>;

// Calls visit() for every block, the last first. The result does not depend on the pool.
// progress(0 to 1) is called between passes.
void measure_sensitivity(const Checkpoint& checkpoint, const ModelConfig& config,
                         const CalibrationData& data, const SensitivityOptions& options,
                         ThreadPool& pool, const SensitivityVisitor& visit,
                         const std::function<void(double done)>& progress);

// 1/2 sum F d^2 for the rounding of a linear to each of some schemes of integers (for_shape()
// applied), each group on the grid that is best by the columns' share of F. Estimated from a fourth
// of the rows and those that matter most. Throws as searched_grid(), and naming a weight that is
// not finite.
std::vector<double> rounding_losses(const BlockWeights::Linear& linear,
                                    const std::vector<float>& fisher,
                                    const std::vector<QuantScheme>& schemes, ThreadPool& pool);

}  // namespace lowbit
